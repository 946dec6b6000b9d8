"""Compressed updates through whole rounds: what is added up, what is counted, what clients keep, what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedbatch import client_app, server_app
from fedbatch.aggregation.sums import combine
from fedbatch.clients import FedSGD
from fedbatch.compression import QSGD, Compression, Half, RandK, Sign, TopK
from fedbatch.compression import half as half_stage
from fedbatch.compression.chain import client_key
from fedbatch.config.schema import parse
from fedbatch.core.errors import ConfigError
from fedbatch.core.random import key as derived
from fedbatch.node import train as node
from fedbatch.runtime.flower import num_bytes
from fedbatch.runtime.local import LocalGrid
from fedbatch.server.cohort import draw_cohort
from fedbatch.server.collect import make_plans
from fedbatch.server.compressed import Spread, opened
from fedbatch.server.exchange import NoAnswerError
from fedbatch.server.measure import measure
from fedbatch.setup import task
from fedbatch.wire.codec import encode
from fedbatch.wire.messages import Contribution
from tests.conftest import run

ALL = ("top_k", "rand_k", "qsgd", "sign", "power_sgd", "half")
FIXED = ("controller=fixed", "rounds=3", "cohort_size=10")
NO_FEEDBACK = "compression.error_feedback=false"


def on(config, **changed):
    return parse(json.loads(config.to_json()) | {"resume": config.run_dir} | changed)


def assert_same(one, other):
    def kept(rows):
        return [repr({n: v for n, v in row.items() if not n.endswith("_seconds") or "simulated" in n}) for row in rows]

    assert kept(one[0]) == kept(other[0])
    assert torch.equal(one[2].params, other[2].params)


@pytest.mark.parametrize("name", ALL)
def test_nodes_and_the_way_of_messages_make_no_difference(make_config, name):
    settings = (*FIXED, f"compression={name}", "executor=loop")
    _, one, state = run(make_config(*settings, folder="one"))
    _, _, written = run(make_config(*settings, "nodes=3", "runtime.by_reference=false", folder="three"))
    torch.testing.assert_close(written.params, state.params, rtol=1e-4, atol=1e-6)
    assert one["bytes_up"] > 0


@pytest.mark.parametrize("work", ["fedsgd", "local_sgd", "scaffold"])
def test_executors_send_the_same(make_config, work):
    settings = (*FIXED, f"client_work={work}", "compression=rand_k")
    loop, vmap = (run(make_config(*settings, f"executor={name}", folder=name)) for name in ("loop", "vmap"))
    torch.testing.assert_close(vmap[2].params, loop[2].params, rtol=1e-4, atol=1e-6)
    assert vmap[0][-1]["compression_variance"] == pytest.approx(loop[0][-1]["compression_variance"], rel=1e-3)


def test_half_precision_ends_where_none_does(make_config):
    settings = (*FIXED, "rounds=10")
    plain = run(make_config(*settings, "executor=vmap", folder="plain"))[2].params
    half = run(make_config(*settings, "executor=vmap", "compression=half", folder="half"))[2].params
    assert 0 < (half - plain).norm() < 2e-3 * plain.norm()


def test_the_sum_of_decoded_updates_is_that_of_single_ones(make_config):
    """Random places of each client's own gradient, by NumPy, from a node that was asked for single updates."""
    config = make_config(*FIXED, "compression=rand_k", "executor=loop", "rounds=1")
    single = replace(config, compression={}, aggregator={"_target_": "fedbatch.aggregation.coordinate_median"})
    server, _, plans = planned(single)
    (plan,) = plans.values()
    rows = node.train(plan, server.task).updates.view(10, -1).numpy()
    n = rows.shape[1]
    kept = np.zeros_like(rows)
    for row, sent, client in zip(rows, kept, plan.clients.tolist(), strict=True):
        key = derived(client_key(0, 0, client), "stage", 0)
        places = np.random.Generator(np.random.Philox(key=key)).permutation(n)[: n // 10]
        sent[places] = row[places] * 10
    task.forget()
    server, _, plans = planned(config)
    (plan,) = plans.values()
    answer = node.train(plan, server.task)
    assert len(answer.update_sum) == 0 and len(answer.payload) == 10 * 4 * (n // 10)
    mean = combine([opened(server, Spread.none(plan.params), answer, plan)]).mean_update.numpy()
    weights = answer.weights / answer.weights.sum()
    np.testing.assert_allclose(mean, weights @ kept, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(answer.sq_norms, (rows**2).sum(axis=1), rtol=1e-4)
    np.testing.assert_allclose(answer.sq_errors, ((rows - kept) ** 2).sum(axis=1), rtol=1e-4)


def planned(config):
    run_ = task.load(config.to_json())
    grid = LocalGrid(client_app.app, config.nodes, {"config": config.to_json()})
    server = server_app.new_server(run_, grid)
    state = server_app.start(server)
    phase = server.phase(state.control)
    return server, state, make_plans(server, state, phase, draw_cohort(server, state, phase))


@pytest.mark.parametrize("work", ["fedsgd", "scaffold"])
@pytest.mark.parametrize("name", ALL)
def test_bytes_are_those_of_the_message_of_a_node_with_one_client(make_config, name, work):
    more = ["compression.stages.top_k.share=0.005"] if name == "top_k" else []
    width = ("model.width=800", "cohort_size=1", "rounds=1", "controller=fixed", "executor=loop")  # 60,000 parameters
    config = make_config(*width, f"compression={name}", f"client_work={work}", *more)
    server, state, plans = planned(config)
    (plan,) = plans.values()
    assert len(state.params) >= 50_000
    real = num_bytes(encode(node.train(plan, server.task)))
    rows, summary, _ = run(config)
    assert summary["bytes_up"] == pytest.approx(real, rel=0.002)
    seconds = server.time_model
    expected = seconds.round_seconds(
        0, np.zeros(1, np.int64), np.array([rows[0]["examples"]]), summary["bytes_down"], real
    )
    assert summary["simulated_seconds"] == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("work", ["fedsgd", "local_sgd", "scaffold"])
def test_without_compression_the_message_is_three_kilobytes_longer_than_its_vectors(make_config, work):
    config = make_config("cohort_size=1", "rounds=1", "controller=fixed", "executor=loop", f"client_work={work}")
    server, _, plans = planned(config)
    (plan,) = plans.values()
    summary = run(config)[1]
    assert 0 < num_bytes(encode(node.train(plan, server.task))) - summary["bytes_up"] < 3000
    assert 0 < num_bytes(encode(plan)) - summary["bytes_down"] < 3000


def test_what_is_sent_is_small(make_config):
    settings = ("controller=fixed", "rounds=1", "model.width=800", "executor=loop")
    plain = run(make_config(*settings, folder="plain"))[1]["bytes_up"]
    shares = {"top_k": 0.035, "qsgd": 0.14, "sign": 0.045, "power_sgd": 0.09, "half": 0.52}
    for name, most in shares.items():
        assert run(make_config(*settings, f"compression={name}", folder=name))[1]["bytes_up"] < most * plain


@pytest.mark.parametrize("stage", [RandK(0.2), RandK(0.05), QSGD(1), Half(), None], ids=repr)
def test_the_noise_scale_stays_unbiased_and_knows_its_error(stage):
    """|G|^2 and tr(S) of Gaussian gradients, over 400 rounds of 8 clients with unequal batches."""
    d, chain = 60, None if stage is None else Compression({"a": stage})
    generator = torch.Generator().manual_seed(1)
    truth = torch.linspace(-1, 1, d)
    sizes, sigma = np.array([2, 3, 4, 5, 6, 7, 8, 9]), 1.5
    found = []
    for round_ in range(400):
        noise = torch.randn(len(sizes), d, generator=generator) * sigma
        updates = truth + noise / torch.from_numpy(sizes).sqrt()[:, None].float()
        total, spread = sent(updates, sizes, chain, round_)
        total = replace(total, compression_overlap=spread.overlap / total.weight_sum**4)
        measured = measure(total, FedSGD(), 100, chain)
        now = measured.noise
        found.append((now.grad_sq, now.grad_sq_se, now.trace, now.trace_se, measured.compression or 0.0))
    grad_sq, grad_sq_se, trace, trace_se, added = np.array(found).T
    for values, told, expected in (
        (grad_sq, grad_sq_se, float(truth.square().sum())),
        (trace, trace_se, d * sigma**2),
    ):
        z = (values.mean() - expected) / (values.std(ddof=1) / len(values) ** 0.5)
        assert abs(z) < 4
        assert 0.75 < told.mean() / values.std() < 1.5
    if isinstance(stage, RandK):  # sum w^2 (n/k - 1) |u|^2 over sum w^2 / b, with w = b
        energies = sizes**2 * (float(truth.square().sum()) + d * sigma**2 / sizes)
        assert added.mean() == pytest.approx((1 / stage.share - 1) * energies.sum() / sizes.sum(), rel=0.05)


def sent(updates, sizes, chain, round_):
    """What the server makes of the updates (K, d) of clients with so many examples, and where errors are."""
    keys = [client_key(0, round_, client) for client in range(len(updates))]
    n = updates.shape[1]
    arrived, spread = updates, Spread.none(updates[0])
    if chain is not None:
        decoded = [chain.decode(chain.encode(u, k), n, u.dtype, k) for u, k in zip(updates, keys, strict=True)]
        arrived = torch.stack(decoded)
    squares = (arrived - updates).double().square().sum(dim=1).numpy() if chain else np.zeros(0)
    for each in zip(arrived, sizes.tolist(), squares.tolist(), strict=False):
        spread.count(*each)
    weights, none = sizes.astype(np.float64), np.zeros(0)
    answer = Contribution(
        update_sum=(torch.from_numpy(weights)[:, None] * arrived).sum(dim=0),
        buffer_sum=torch.zeros(0),
        unit_sum=torch.zeros(0),
        clients=np.arange(len(sizes)),
        weights=weights,
        num_examples=sizes,
        sq_norms=updates.double().square().sum(dim=1).numpy(),
        losses=weights,
        half_dots=none,
        half_sq_diffs=none,
        excluded=np.zeros(0, np.int64),
        sq_errors=squares,
    )
    return combine([answer]), spread


@pytest.mark.parametrize(("controller", "decides"), [("fixed", ""), ("adaptive", ", by which the controller decides")])
def test_a_biased_stage_says_so_once_at_the_start(make_config, caplog, controller, decides):
    more = ["controller.max_cohort_size=20"] if controller == "adaptive" else []
    run(make_config(f"controller={controller}", *more, "rounds=3", "compression=top_k"))
    said = [line for line in caplog.messages if line.startswith("compression:")]
    expected = f"stage top_k is biased, and so is the noise scale{decides}; compression_variance is a squared error"
    assert said == [f"compression: {expected}"]


def test_an_unbiased_one_says_nothing(make_config, caplog):
    rows, _, _ = run(make_config(*FIXED, "compression=qsgd"))
    assert not [line for line in caplog.messages if line.startswith("compression:")]
    assert all(row["compression_variance"] > 0 for row in rows)


def test_majority_steps_along_signs_and_measures_no_noise(make_config):
    majority = ("compression=sign", "compression.stages.sign.majority=true", NO_FEEDBACK, "rounds=1")
    config = make_config(*FIXED, *majority, "server_optimizer.lr=0.25", "server_optimizer.momentum=0", "nodes=2")
    before = server_app.start(planned(config)[0]).params.clone()
    task.forget()
    rows, _, state = run(config)
    assert set(((state.params - before) / 0.25).round(decimals=4).tolist()) <= {-1.0, 0.0, 1.0}
    assert np.isnan(rows[0]["round_trace"]) and "compression_variance" not in rows[0]


def broken_from(round_):
    patch = pytest.MonkeyPatch()
    original = node.train

    def train(plan, run_):
        answer = original(plan, run_)
        if plan.round >= round_:
            raise RuntimeError("lost on the way")
        return answer

    patch.setattr(node, "train", train)
    return patch


@pytest.mark.parametrize("work", ["fedsgd", "scaffold"])
def test_error_feedback_resumes_bit_for_bit(make_config, work):
    settings = (*FIXED, "compression=top_k", f"client_work={work}", "executor=vmap")
    settings = (*settings, "rounds=9", "checkpoint_every_rounds=3")
    whole = run(make_config(*settings, folder="whole"))
    config = make_config(*settings, folder="broken")
    for lost in (5, 8):
        patch = broken_from(lost)
        with pytest.raises(NoAnswerError):
            run(config if lost == 5 else on(config))
        patch.undo()
        task.forget()
    assert_same(run(on(config)), whole)
    assert all(row["lost_client_states"] == 0 for row in whole[0])


def test_who_has_lost_its_residual_begins_with_zeros_and_is_counted(make_config):
    config = make_config(*FIXED, "compression=top_k", "cohort_size=20", "sampling=all")
    run(config)
    folder = Path(config.run_dir) / "clients" / "residuals"
    for path in (folder / "3").glob("*.npy"):
        path.write_bytes(path.read_bytes()[:40])
    task.forget()
    rows, _, _ = run(on(config, rounds=5))
    assert [row["lost_client_states"] for row in rows] == [0, 0, 0, 1, 0]


def test_a_client_that_float16_cannot_hold_is_left_out_and_said(make_config, caplog, monkeypatch):
    half_stage._tell_of_overflow.cache_clear()  # an earlier test may have been told
    original = TopK.encode

    def encode(self, vector, key):
        return original(self, vector * 1e9 if key % 3 == 0 else vector, key)

    monkeypatch.setattr(TopK, "encode", encode)
    half = "+compression.stages.half={_target_: fedbatch.compression.Half, dtype: float16}"
    config = make_config(*FIXED, "compression=top_k", half, "cohort_size=20", "sampling=all", "executor=loop")
    rows, _, _ = run(config)
    assert 0 < rows[0]["excluded_clients"] < 20 and rows[0]["cohort_size"] == 20 - rows[0]["excluded_clients"]
    assert sum("65504" in line and "bfloat16" in line for line in caplog.messages) == 1


@pytest.mark.parametrize("name", ["top_k", "qsgd", "half"])
def test_faults_of_nodes_strike_what_is_compressed(make_config, name):
    faults = ("faults=some", "faults.corrupted=0.2", "faults.not_finite=0.2")
    config = make_config(*FIXED, f"compression={name}", "nodes=20", "executor=loop", *faults, "rounds=2")
    rows, _, state = run(config)
    assert all(2 <= row["rejected_replies"] <= 4 for row in rows) and state.params.isfinite().all()


def test_a_node_none_of_whose_clients_is_finite_sends_nothing(make_config, monkeypatch):
    original = FedSGD.update
    config = make_config(*FIXED, "compression=qsgd", "nodes=2", "cohort_size=20", "sampling=all", "executor=loop")

    def update(self, job, row):
        found, *rest = original(self, job, row)
        return (found * np.nan if job.clients[row] < 10 else found, *rest)

    monkeypatch.setattr(FedSGD, "update", update)
    rows, _, _ = run(config)
    assert [row["excluded_clients"] for row in rows] == [10] * 3 and rows[0]["rejected_replies"] == 0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["compression=top_k", "privacy=client_central", "privacy.target_epsilon=5"], "compression: a private run"),
        (["compression=top_k", "aggregator=median"], "compression: .*use aggregator=mean"),
        (["compression=qsgd", "noise_scale.cosine=true"], "noise_scale.cosine: .*set it to false"),
        (["compression=qsgd", "noise_scale.groups=4"], "noise_scale.groups: .*compression=none"),
        (["compression=qsgd", "faults=some", "faults.adversaries=0.2"], "faults.adversaries: .*compression=none"),
        (["compression=qsgd", "executor=fused"], "executor=fused cannot run this: compression needs single updates"),
        (["compression=rand_k", "compression.error_feedback=true"], "error_feedback: what stage rand_k takes away"),
        (["compression=rand_k", "compression.stages.rand_k.share=0"], "compression.stages.rand_k.share must be in"),
        (["compression=rand_k", "compression.stages.rand_k.share=abc"], "compression.stages.rand_k.share must be"),
        (["compression=half", "compression.stages.half.dtype=float8"], "dtype of Half must be float16 or bfloat16"),
        (["compression=qsgd", "+compression.stages.b={_target_: fedbatch.compression.PowerSGD}"], "make it the first"),
        (["compression=qsgd", "~compression.stages.qsgd"], "compression: has no stages"),
        (["compression=qsgd", "compression.stages.qsgd._target_=fedbatch.losses.Focal"], "compression"),
        (["compression=qsgd", "compression._target_=fedbatch.losses.Focal"], "compression"),
    ],
)
def test_what_cannot_be_compressed_is_refused_in_one_line(make_config, overrides, words):
    with pytest.raises(ConfigError, match=words) as refused:
        task.load(make_config("controller=fixed", *overrides).to_json())
    assert "\n" not in str(refused.value)


class Liar(RandK):
    """Sends one number more than it says."""

    def encode(self, vector, key):
        sent, side = super().encode(vector, key)
        return torch.cat([sent, sent[:1]]), side


class Broken(RandK):
    """Cannot read what it sends."""

    def decode(self, vector, side, n, key):
        raise KeyError("places")


@pytest.mark.parametrize(
    ("stage", "words"), [(Liar, "say that they send .* bytes and give"), (Broken, "fail on .*places")]
)
def test_a_stage_of_ones_own_is_tried_before_the_run(make_config, stage, words):
    config = make_config("compression=rand_k")
    own = {"_target_": f"{__name__}.{stage.__name__}", "share": 0.1}
    config = replace(config, compression={**config.compression, "stages": {"own": own}})
    with pytest.raises(ConfigError, match=words) as refused:
        task.load(config.to_json())
    assert "\n" not in str(refused.value)


def test_own_vectors_that_differ_between_phases_are_refused_with_feedback(make_config):
    work = "controller.large.client_work={_target_: fedbatch.clients.Scaffold, lr: 0.05, epochs: 1}"
    with pytest.raises(ConfigError, match="error_feedback: two phases have client work whose clients keep different"):
        task.load(make_config("compression=sign", work).to_json())
    assert Sign().worst_error(10) < 1
