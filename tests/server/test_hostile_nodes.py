"""Mutated answers of every kind, through all that the server does with them: refused in words, never a traceback."""

import random
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from fedbatch import client_app, server_app
from fedbatch.core.errors import ConfigError, RunFailedError
from fedbatch.metrics.report import Calibration
from fedbatch.privacy import attempts
from fedbatch.runtime.flower import stamp
from fedbatch.runtime.local import LocalGrid
from fedbatch.server.collect import collect
from fedbatch.server.collect_private import collect_private
from fedbatch.server.evaluate import held_out
from fedbatch.server.held_out import HeldOut, noised_slope, slope_plans
from fedbatch.server.hosts import check_hosts, discover
from fedbatch.server.query import Poll, choose_own, choose_together, cluster_pools
from fedbatch.server.stopwatch import Stopwatch
from fedbatch.setup import task
from tests.wire.test_mutated_messages import array, mutated

NOISED = ("privacy.target_epsilon=null", "privacy.noise_multiplier=1.0", "executor=fused")
CLIENT = ("privacy=client_central", *NOISED)
TEMPERATURE = ("client_holdout=0.3", "temperature=private", "temperature.clip_norm=4", "evaluate_every_rounds=0")
EXTREME = [0.0, -1.0, 0.5, 2.0, 1e9, 1e30, -1e30, 1e38, -3.4e38, 1e150, 1e300, -1e300, 5e-324]
BYTES = [0, 1, 127, 128, 254, 255]
WHOLE = [-1, 0, 1, 7, 10**6, 10**9, 10**12, 2**62, 2**63 - 1]
WORDS = (RunFailedError, ConfigError)


class Replayed:
    """A Grid whose nodes' answers are worked out once; one of them may be changed on its way."""

    def __init__(self, grid, rounds=1):
        self._grid, self._kept, self.change, self.changed = grid, {}, None, ""

    def __getattr__(self, name):
        return getattr(self._grid, name)

    def send_and_receive(self, messages, *, timeout=None):
        for message in messages:
            meta, plan = message.metadata, message.content.config_records["plan"]
            key = (meta.message_type, meta.dst_node_id, str(sorted(plan.items())), content_bytes(message.content))
            if key not in self._kept:
                (reply,) = self._grid.send_and_receive([message])
                if self.changed and reply.has_error():  # nodes refuse what another has spoilt
                    yield reply
                    continue
                assert not reply.has_error(), reply.error
                self._kept[key] = reply.content
            content = self._kept[key]
            if self.change is not None and meta.dst_node_id == 2:
                content, self.changed = self.change(content)
                self.change = None
            yield stamp(Message(content, reply_to=message), "m")


def content_bytes(content):
    return hash(b"".join(a.data for record in content.array_records.values() for a in record.values()))


def scene(make_config, *overrides, nodes=3):
    config = make_config("controller=fixed", f"nodes={nodes}", "cohort_size=12", *overrides)
    config = replace(config, run_dir=str(config.run_dir))
    loaded = task.load(config.to_json())
    grid = Replayed(LocalGrid(client_app.app, nodes, {"config": config.to_json()}, by_reference=False))
    server = server_app.new_server(loaded, grid)
    return server, server_app.start(server), grid


def train(server, state):
    return lambda: collect(server, state, server.phase(state.control), Stopwatch(coarse=True))


def train_privately(server, state):
    def once():
        for name in ("ledger.jsonl", attempts.FILE):
            Path(server.folder, name).unlink(missing_ok=True)
        Path(server.folder).mkdir(parents=True, exist_ok=True)
        phase = server.phase(state.control)
        return collect_private(server, server.task.privacy, state, phase, Stopwatch(coarse=True))

    return once


def slope(server, state):
    return lambda: noised_slope(server, server.task.privacy, slope_plans(server, state, 1.0, 4.0))


def hosting(server, state):
    known = server.task.partition.sizes(np.arange(len(server.hosts.clients)))
    return lambda: check_hosts(discover(server.grid, 3, None), known, False)


def labelling(server, state):
    def all_steps():
        poll = Poll(server, 1)
        choose_own(Poll(server, 0), None, np.full(len(server.hosts.clients), 2))
        groups = cluster_pools(poll, state) if server.task.active.selector.uses_clusters else []
        return choose_together(poll, state, groups, 10)

    return all_steps


ACTIVE = ("active.seed_labels=40", "active.labels_per_query=20", "active.queries=1", "executor=fused")
SCENES = {
    "sums": (train, ("executor=fused",)),
    "halves": (train, ("executor=loop", "noise_scale.halves=true", "noise_scale.cosine=true")),
    "groups": (train, ("executor=loop", "noise_scale.groups=4", "noise_scale.every=1")),
    "updates": (train, ("executor=loop", "aggregator=median")),
    "top_k": (train, ("executor=loop", "compression=top_k")),
    "qsgd_rand_k": (
        train,
        ("executor=loop", "compression=rand_k", "+compression.stages.b={_target_: fedbatch.compression.QSGD}"),
    ),
    "sign_half": (
        train,
        ("executor=loop", "compression=sign", "+compression.stages.b={_target_: fedbatch.compression.Half}"),
    ),
    "power_sgd": (train, ("executor=loop", "compression=power_sgd", "client_work=scaffold")),
    "client_central": (train_privately, CLIENT),
    "quantile": (train_privately, (*CLIENT, "privacy.clip_quantile=0.5")),
    "example_local": (train_privately, ("privacy=example_local", *NOISED)),
    "example_distributed": (train_privately, ("privacy=example_distributed", "privacy.min_clients=4", *NOISED)),
    "masked": (
        train_privately,
        (
            *("privacy=example_distributed", "privacy.min_clients=4", *NOISED),
            *("privacy.secure_aggregation=masked", "privacy.quantum=0.01"),
        ),
    ),
    "local_steps": (
        train_privately,
        ("privacy=example_local", "client_work=local_sgd", "client_work.steps=2", "client_work.epochs=null", *NOISED),
    ),
    "evaluation": (lambda s, t: lambda: held_out(s, t), ("client_holdout=0.3",)),
    "scores": (
        lambda s, t: lambda: Calibration().columns(HeldOut(s, t)),
        ("client_holdout=0.3", "metrics=calibration"),
    ),
    "scaled": (
        lambda s, t: lambda: s.task.temperature.fit(HeldOut(s, t, "fit")),
        ("client_holdout=0.3", "temperature=shared"),
    ),
    "soft_bins": (
        lambda s, t: lambda: s.task.temperature.fit(HeldOut(s, t, "fit")),
        ("client_holdout=0.3", "temperature=soft_bins"),
    ),
    "temperatures": (
        lambda s, t: HeldOut(s, t, "fit").own_temperatures,
        ("client_holdout=0.3", "temperature=per_client"),
    ),
    "slope": (slope, (*CLIENT, *TEMPERATURE)),
    "slope_of_examples": (slope, ("privacy=example_local", *NOISED, *TEMPERATURE)),
    "hosted": (hosting, ()),
    "margin": (labelling, ("active=margin", *ACTIVE)),
    "cluster_margin": (labelling, ("active=cluster_margin", *ACTIVE)),
}

QUESTIONS = {"margin": 3, "cluster_margin": 3, "scores": 3, "masked": 4}
"""Of which any may be answered wrongly; of others it is the first."""


def extreme(content, generator):
    """A reply with one value of one array, or all of them, changed to one that its dtype can hold."""
    names = [(g, n) for g in ("arrays", "clients") for n in content.array_records[g]]
    group, name = generator.choice(names)
    values = content.array_records[group][name].numpy().copy()
    if not len(values):
        return extreme(content, generator)
    where = slice(None) if generator.random() < 0.3 else generator.randrange(len(values))
    with np.errstate(all="ignore"):
        values[where] = generator.choice(
            BYTES if values.dtype == np.uint8 else WHOLE if values.dtype == np.int64 else EXTREME
        )
    records = {key: dict(content[key]) for key in ("arrays", "clients", "plan")}
    records[group][name] = array(values)
    from flwr.app import ArrayRecord, ConfigRecord, RecordDict

    made = {k: ConfigRecord(v) if k == "plan" else ArrayRecord(v) for k, v in records.items()}
    return RecordDict(made), f"extreme {group} {name} {values[where]}"


def any_change(content, generator):
    """A reply with anything changed: its form, or a value."""
    try:
        return generator.choice([mutated, extreme])(content, generator)
    except (KeyError, IndexError):  # there is nothing of that to change in such a reply
        return extreme(content, generator)


def attack(make_config, name, tries, seed):
    """What became of so many mutations of one kind of answer; a traceback is a failure by itself."""
    make, overrides = SCENES[name]
    server, state, grid = scene(make_config, *overrides)
    act, generator, ends = make(server, state), random.Random(seed), Counter()
    act()
    for _ in range(tries):
        skip = generator.randrange(QUESTIONS.get(name, 1))

        def change(content):
            return any_change(content, generator)

        grid.change, grid.changed = change, ""
        if skip:
            waiting = [change]

            def later(content, waiting=waiting, left=[skip]):  # noqa: B006
                left[0] -= 1
                grid.change = waiting[0] if left[0] <= 0 else later
                return content, ""

            grid.change = later
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                act()
            ends["went on"] += 1
        except WORDS as error:
            assert "\n" not in str(error), grid.changed
            ends["said why"] += 1
        except Exception as error:
            raise AssertionError(f"{grid.changed}: {type(error).__name__}: {error}") from error
        finally:
            grid.change = None
    return ends


@pytest.mark.parametrize("name", SCENES)
def test_no_mutated_answer_is_a_traceback(make_config, name):
    assert sum(attack(make_config, name, 25, 1).values()) == 25


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_no_mutated_answer_is_a_traceback_at_length(make_config, name):
    """5,000 in all."""
    assert sum(attack(make_config, name, -(-5000 // len(SCENES)), 2).values()) * len(SCENES) >= 5000
