"""One node of four that lies: it can neither own nor end nor freeze a run, and the run names it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, RecordDict

from fedbatch import client_app, server_app
from fedbatch.aggregation.bounded import averaged, limits
from fedbatch.core.errors import ConfigError
from fedbatch.results.store import read_rows
from fedbatch.runtime.flower import SERVER_NODE_ID, new_context
from fedbatch.runtime.local import LocalGrid
from fedbatch.server.checkpoint import load_latest
from fedbatch.server.exchange import tell_once
from fedbatch.setup import task
from fedbatch.wire.codec import ByReference

LIAR = 3
"""The second of the nodes, which are numbered from 2."""
FOUR = ("controller=noise_scale_switch", "nodes=4", "cohort_size=20", "rounds=8", "executor=fused", "population=20")
LARGE = ("controller.small.cohort_size=20", "controller.large.cohort_size=20", "evaluate_every_rounds=4")


class Lying(LocalGrid):
    """A Grid with one node whose answers to messages of one type are changed."""

    def __init__(self, nodes, run_config, type_, lie, by_reference):
        super().__init__(client_app.app, nodes, run_config, by_reference)
        self._type, self._lie = type_, lie

    def _deliver(self, message):
        reply = super()._deliver(message)
        meta = message.metadata
        if meta.dst_node_id == LIAR and meta.message_type == self._type and not reply.has_error():
            reply.content = self._lie(reply.content)
        return reply


def with_values(**changes):
    """A lie: functions of the arrays of a reply, by name."""

    def lie(content):
        if isinstance(content, ByReference):
            return ByReference(replaced(content.message, changes))
        records = dict(content)
        for group in ("arrays", "clients"):
            arrays = dict(content.array_records[group])
            for name in changes.keys() & arrays.keys():
                old = arrays[name].numpy()
                arrays[name] = Array(np.asarray(changes[name](old), dtype=old.dtype))
            records[group] = ArrayRecord(arrays)
        return RecordDict(records)

    return lie


def replaced(message, changes):
    told = {}
    for name in changes.keys() & vars(message).keys():
        old = np.asarray(getattr(message, name))
        new = np.asarray(changes[name](old), dtype=old.dtype)
        told[name] = torch.from_numpy(new) if isinstance(getattr(message, name), torch.Tensor) else new
    return replace(message, **told)


def outcome(config, type_="", lie=None, by_reference=False):
    run_config = {"config": config.to_json()}
    grid = Lying(config.nodes, run_config, type_, lie, by_reference)
    server_app.app(grid, new_context(1, SERVER_NODE_ID, {}, run_config))
    folder = Path(config.run_dir)
    return (
        read_rows(folder / "rounds.jsonl"),
        load_latest(folder / "checkpoints").params,
        json.loads((folder / "summary.json").read_text()),
    )


@pytest.fixture
def four(make_config):
    tell_once.cache_clear()
    return lambda *more, folder="run": make_config(*FOUR, *LARGE, *more, folder=folder)


TRAIN = {
    "a step of its own": (dict(update_sum=lambda u: u * 1e9), "rejected_replies"),
    "one finite 1e30": (dict(update_sum=lambda u: u * 0 + 1e30), "rejected_replies"),
    "1e30 that agrees with itself": (
        dict(update_sum=lambda u: u / np.linalg.norm(u) * 1e25, sq_norms=lambda s: s * 0 + 1e50),
        "bounded_nodes",
    ),
    "one sq_norm of 1e300": (dict(sq_norms=lambda s: np.where(np.arange(len(s)) == 0, 1e300, s)), "rejected_replies"),
    "one sq_norm of 1e60": (dict(sq_norms=lambda s: np.where(np.arange(len(s)) == 0, 1e60, s)), "bounded_nodes"),
    "losses of 1e300": (dict(losses=lambda s: s * 0 + 1e300), "rejected_replies"),
    "a thousand times longer": (
        dict(update_sum=lambda u: u * -1e3, sq_norms=lambda s: s * 1e6),
        "bounded_nodes",
    ),
}


@pytest.mark.parametrize("by_reference", [True, False])
@pytest.mark.parametrize("name", TRAIN)
def test_a_lie_about_an_update_changes_little_and_is_counted(four, name, by_reference, caplog):
    changes, column = TRAIN[name]
    _, honest, _ = outcome(four(folder="honest"))
    rows, params, summary = outcome(four(), "train", with_values(**changes), by_reference)
    assert summary["status"] == "finished" and all(row[column] == 1 for row in rows)
    start = server_app.start(server_of(four())).params
    assert float((params - honest).norm()) <= 2 * float((honest - start).norm())
    assert all(np.isfinite(row["noise_scale_low"] or 0.0) for row in rows)
    if column == "bounded_nodes":
        assert f"node {LIAR} (client 5 and more)" in caplog.text


def server_of(config):
    text = config.to_json()
    return server_app.new_server(task.load(text), LocalGrid(client_app.app, 4, {"config": text}))


def test_one_lie_does_not_freeze_the_noise_scale(four):
    honest, _, _ = outcome(four(folder="honest"))
    lie = with_values(sq_norms=lambda s: np.where(np.arange(len(s)) == 0, 1e60, s))
    rows, _, _ = outcome(four(), "train", lie)
    assert rows[-1]["round_trace"] < 500 * max(row["round_trace"] for row in honest)


def test_honest_nodes_are_never_bounded(four):
    rows, _, _ = outcome(four("partitioner=dirichlet", "partitioner.alpha=0.3", "client_batch_size=null"))
    assert all("bounded_nodes" not in row and row["rejected_replies"] == 0 for row in rows)


@pytest.mark.parametrize("by_reference", [True, False])
@pytest.mark.parametrize("value", [-3.4e38, 1e9, -1.0])
def test_scores_are_within_their_counts(four, value, by_reference):
    config = four("client_holdout=0.3")
    rows, _, _ = outcome(config, "evaluate", with_values(score_sums=lambda c: c * 0 + value), by_reference)
    tested = [row for row in rows if "client_accuracy_p50" in row]
    assert tested and all(row["rejected_evaluations"] == 1 and 0 <= row["client_accuracy_p5"] <= 1 for row in tested)


HOSTED = {
    "a thousand million examples": (dict(num_examples=lambda n: n * 0 + 10**9), "node 3 says that client .* has 1000"),
    "all that int64 holds": (dict(num_examples=lambda n: n * 0 + 2**62), "node 3 says that client"),
    "ids beyond the population": (dict(clients=lambda c: c + 10**12), "hosts client .* clients are numbered 0 .. 19"),
    "clients of another": (dict(clients=lambda c: c - 1), "two nodes host the same client"),
}


@pytest.mark.parametrize("name", HOSTED)
def test_a_lie_about_clients_and_sizes_is_refused_by_name(four, name):
    changes, line = HOSTED[name]
    with pytest.raises(ConfigError, match=line):
        outcome(four(), "query", with_values(**changes))


def test_a_private_run_has_the_sizes_of_its_config(make_config):
    private = ("privacy=example_local", "privacy.target_epsilon=null", "privacy.noise_multiplier=1.0")
    config = make_config(*private, "controller=fixed", "nodes=4")
    with pytest.raises(ConfigError, match="a private run takes .* from its config"):
        outcome(config, "query", with_values(num_examples=lambda n: n + 1))


def test_limits_compare_with_others_and_with_the_own_past():
    assert limits({1: 1.0, 2: 2.0}, {}) == {1: np.inf, 2: np.inf}, "two nodes cannot outvote each other"
    assert limits({1: 5.0, 2: 2.0, 3: 1.0}, {}) == dict.fromkeys((1, 2, 3), np.inf)
    assert limits({1: 1.0, 2: 2.0, 3: 1e30}, {})[3] == 1.5
    assert limits({3: 1e30}, {1: 1.0, 2: 2.0})[3] == 1.5, "those who do not take part count by their past"
    assert limits({1: 1.0, 2: 1.0, 3: 40.0}, {3: 5.0})[3] == np.inf
    assert limits({1: 1.0, 2: 1.0, 3: 1e6}, {3: 1e5})[3] == 1.0, "a past that is too long counts no further"
    assert limits({1: 0.0, 2: 0.0, 3: 1.0}, {}) == dict.fromkeys((1, 2, 3), np.inf)


def test_nobody_climbs_by_small_steps():
    past, length = {}, 1.0
    for _ in range(300):
        now = {1: 1.0, 2: 1.0, 3: length}
        allowed = limits(now, past)
        past = averaged({node: min(value, allowed[node]) for node, value in now.items()}, past)
        length *= 5
    assert past[3] <= 100.0 and past[1] == pytest.approx(1.0)


def test_a_resumed_run_bounds_as_the_whole_one(four):
    lie = with_values(update_sum=lambda u: u * -1e3, sq_norms=lambda s: s * 1e6)
    _, whole, _ = outcome(four(folder="whole"), "train", lie)
    first = four("rounds=4")
    outcome(first, "train", lie)
    rows, params, _ = outcome(replace(first, rounds=8, resume=first.run_dir), "train", lie)
    assert torch.equal(params, whole) and rows[-1]["bounded_nodes"] == 1
