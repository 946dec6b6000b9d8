"""A thousand replies that are not what was asked for: none crashes the server, none is taken."""

import io
import random

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedbatch import client_app, server_app
from fedbatch.controllers.phase import Phase
from fedbatch.runtime.local import LocalGrid
from fedbatch.server.cohort import draw_cohort
from fedbatch.server.collect import check_sizes, make_plans
from fedbatch.server.compressed import Spread, opened
from fedbatch.server.exchange import answer_lengths, check_clients
from fedbatch.setup import task
from fedbatch.wire.check import MessageError
from fedbatch.wire.codec import decode_measured, encode
from fedbatch.wire.messages import Contribution, Updates

DTYPES = [np.float16, np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_, np.complex64, ">f4", ">i8", "U3"]
SCALARS = [None, True, -1, 0, 1, 7, 2.0, "", "Contribution", "Updates", "TrainPlan", b"x", [1, 2], [], ["a"]]
NUMBERS = [np.nan, np.inf, -np.inf, -1.0, 0.0, 0.5, 1e9, 1e300]


@pytest.fixture(params=["sums", "updates", "halves", "besides", "top_k", "qsgd", "sign", "half"])
def answered(make_config, request):
    """A server, the plan of one of its nodes, and that node's valid reply."""
    more = {
        **{name: [f"compression={name}"] for name in ("top_k", "qsgd", "sign", "half")},
        "sums": [],
        "updates": ["aggregator=median"],
        "besides": ["client_work=scaffold"],
        "halves": ["noise_scale.halves=true", "noise_scale.cosine=true"],
    }
    config = make_config("controller=fixed", "nodes=2", "cohort_size=20", *more[request.param], "executor=loop")
    run = task.load(config.to_json())
    grid = LocalGrid(client_app.app, 2, {"config": config.to_json()})
    server = server_app.new_server(run, grid)
    first = server_app.start(server)
    phase: Phase = server.phase(first.control)
    node, plan = next(iter(make_plans(server, first, phase, draw_cohort(server, first, phase)).items()))
    (reply,) = grid.send_and_receive([grid.create_message(encode(plan), "train", node, "0")])
    return server, phase, plan, reply.content


def accept(server, phase, plan, content):
    """The whole way of a reply into the aggregate, up to adding it."""
    kind = Updates if plan.single else Contribution
    answer, squares = decode_measured(kind, content, answer_lengths(plan))
    check_clients(answer, plan)
    check_sizes(server, server.task.work(phase.name), answer, plan, squares)
    spread = Spread.none(plan.params)
    return opened(server, spread, answer, plan) if kind is Contribution else answer


def same(answer, good):
    """Some changes change nothing: what an empty vector is cast to, or says of itself."""
    pairs = zip(vars(answer).values(), vars(good).values(), strict=True)
    arrays = [(np.asarray(left), np.asarray(right)) for left, right in pairs]
    return all(np.array_equal(x, y) and (x.dtype == y.dtype or not x.size) for x, y in arrays)


def npy(values, **options):
    buffer = io.BytesIO()
    np.save(buffer, values, **options)
    return buffer.getvalue()


def array(values):
    return Array(dtype=str(values.dtype), shape=values.shape, stype="numpy.ndarray", data=npy(values))


def spoiled_values(name, values, generator):
    """Other values of the same dtype and shape, such that the protocol can tell; any finite update may be honest."""
    values = values.copy()
    where = generator.randrange(len(values))
    measured = (
        "update_sum",
        "extra_sums",
        "buffer_sum",
        "unit_sum",
        "updates",
        "losses",
        "half_dots",
        "half_sq_diffs",
        "sq_norms",
        "sq_errors",
        "sent_sq_norms",
    )
    if name in measured:
        values[where] = generator.choice([np.nan, np.inf, -np.inf])
    elif name == "payload":
        values[:] = 255  # NaN, places below 0, levels beyond the last
    elif name == "weights":
        values[where] = generator.choice([number for number in NUMBERS if number != values[where]])
    elif values.dtype == np.uint8:
        values[where] ^= generator.choice([1, 128, 255])
    else:
        values[where] += generator.choice([-1000, -1, 1, 1000])
    return values


def spoiled_shape(values, generator):
    longer = np.concatenate([values, values[-1:] if len(values) else np.ones(3, values.dtype)])
    several = [values[:, None], values[None], np.stack([values, values]), np.tile(values, 2), np.array(1, values.dtype)]
    return generator.choice([longer, values[:-1] if len(values) else longer, longer[::-1].copy(), *several])


def spoiled_bytes(old, generator):
    values = old.numpy()
    data = old.data
    where = generator.randrange(10 if len(data) else 1)
    claimed = npy(values).replace(b"'shape': (", b"'shape': (9", 1)
    objects = npy(np.array([{"a": 1}] * 3, dtype=object), allow_pickle=True)
    return generator.choice(
        [b"", b"\0" * 64, data[:-1], data[: len(data) // 2], data[:where], claimed, objects, generator.randbytes(200)]
    )


def mutated(content, generator):
    """A copy of a reply with one thing changed, and what was."""
    records = {name: dict(content[name]) for name in ("arrays", "clients", "plan")}
    group = generator.choice(["arrays", "clients"])
    name = generator.choice(sorted(records[group]))
    old = records[group][name]
    values = old.numpy()
    how = generator.choice(
        ["missing", "extra", "moved", "dtype", "shape", "bytes", "values", "scalar", "record", "order"]
    )
    if how == "missing":
        group = generator.choice(sorted(records))
        del records[group][generator.choice(sorted(records[group]))]
    elif how == "extra":
        records[group][generator.choice(["x", "params", "clients ", "round"])] = old
    elif how == "moved":
        records["clients" if group == "arrays" else "arrays"][name] = records[group].pop(name)
    elif how == "dtype":
        kinds = [kind for kind in DTYPES if np.dtype(kind) != values.dtype]
        with np.errstate(all="ignore"):
            records[group][name] = array(values.astype(generator.choice(kinds)))
    elif how == "shape":
        records[group][name] = array(spoiled_shape(values, generator))
    elif how == "bytes":
        records[group][name] = Array(old.dtype, old.shape, old.stype, spoiled_bytes(old, generator))
    elif how == "values" and len(values):
        records[group][name] = array(spoiled_values(name, values, generator))
    elif how == "order" and len(records["clients"]["clients"].numpy()) > 1:
        records["clients"]["clients"] = array(np.roll(records["clients"]["clients"].numpy(), 1))
    elif how == "record":
        del records[generator.choice(sorted(records))]
    else:
        how, name = "scalar", generator.choice(["schema", "kind", "round", "executor", "lost"])
        value = generator.choice(
            [v for v in SCALARS if type(v) is not type(records["plan"][name]) or v != records["plan"][name]]
        )
        records["plan"].pop(name) if value is None else records["plan"].update({name: value})
    made = {key: ConfigRecord(value) if key == "plan" else ArrayRecord(value) for key, value in records.items()}
    return RecordDict(made), f"{how} {group} {name}"


@pytest.mark.parametrize("seed", range(4))
def test_no_mutated_reply_crashes_the_server_or_is_taken(answered, seed):
    server, phase, plan, content = answered
    good = accept(server, phase, plan, content)
    generator, crashed, taken = random.Random(seed), [], []
    for _ in range(100):
        message, what = mutated(content, generator)
        try:
            answer = accept(server, phase, plan, message)
        except MessageError:
            continue
        except Exception as error:
            crashed.append(f"{what}: {error!r}")
        else:
            taken += [] if same(answer, good) else [what]
    assert (crashed, taken) == ([], [])
