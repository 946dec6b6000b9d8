"""Whole runs whose steps do not wait: against synchronous runs, and against an event queue in NumPy."""

import heapq
import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from fedbatch.clients.fedsgd import FedSGD
from fedbatch.config.schema import identity_of, parse
from fedbatch.core.random import generator
from fedbatch.data.dataset import Dataset
from fedbatch.setup import task
from tests.conftest import run
from tests.server.test_cohort import comparable, same_bits
from tests.server.test_resume import on

FIXED = ("controller=fixed", "executor=fused", "metrics=accuracy")
PLAIN_SGD = ("server_optimizer.momentum=0", "server_optimizer.lr=0.1")
FEDBUFF = "asynchronous=fedbuff"
SPREAD = "time_model.speed_spread=1.5"
SLOW = "time_model.compute_seconds_per_example=0.5"
NEW = {"staleness_mean", "staleness_max", "late_clients"}


def without(rows, names):
    return [{name: value for name, value in row.items() if name not in names} for row in rows]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("client_work=local_sgd", "executor=loop", "nodes=3"),
        ("partitioner=dirichlet", "client_batch_size=null", SPREAD),
    ],
    ids=" ".join,
)
def test_with_as_many_at_work_as_the_buffer_takes_it_is_the_synchronous_run(make_config, options):
    plain, _, state = run(make_config(*FIXED, *options, folder="plain"))
    rows, _, other = run(make_config(*FIXED, *options, FEDBUFF, "asynchronous.concurrency=1", folder="buffered"))
    assert same_bits(state, other) and set(rows[0]) - set(plain[0]) == NEW
    assert comparable(without(rows, NEW)) == comparable(plain)
    assert all((row["staleness_mean"], row["staleness_max"], row["late_clients"]) == (0, 0, 0) for row in rows)


def test_where_nothing_may_be_late_it_is_over_selection(make_config):
    """Of six clients the first four count, and the others are given up: two ways to say the same."""
    plain, _, state = run(make_config(*FIXED, SPREAD, SLOW, "over_selection=1.5", folder="plain"))
    options = (FEDBUFF, "asynchronous.concurrency=1.5", "asynchronous.max_staleness=0")
    rows, _, other = run(make_config(*FIXED, SPREAD, SLOW, *options, folder="buffered"))
    assert same_bits(state, other)
    more = {*NEW, "available_clients", "gone_clients", "waiting_seconds"}
    assert comparable(without(rows, more)) == comparable(without(plain, more))
    assert [row["late_clients"] for row in rows] == [row["late_clients"] for row in plain] == [2] * 4


SIZES = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8])
SECONDS = np.array([0.1, 2.0, 0.3, 5.5, 0.2, 0.15, 1.1, 0.4, 0.6, 9.0, 0.9, 0.25])
"""Of each client: examples, and simulated seconds an example."""


def lines():
    """Numbers in three dimensions that are about a line, for twelve clients who have lines of their own."""
    rng = np.random.default_rng(5)
    owner = np.repeat(np.arange(12), SIZES)
    x = rng.normal(size=(len(owner), 3)).astype(np.float32)
    y = (x @ np.array([[1.0], [-2.0], [0.5]]) + owner[:, None] / 4).astype(np.float32).astype(np.float64)
    return Dataset("lines", x, y, x[:10], y[:10], None, owner)


def line(input_shape, num_classes):
    torch.manual_seed(0)
    return nn.Linear(3, 1, bias=False).double()


def event_queue(theta, lr, at_work, buffer, exponent, most, steps):
    """FedBuff (Nguyen et al. 2022) with full-batch gradients, by a heap of who is done when; parameters and clock."""
    data, clients = lines(), np.arange(12)
    x, y = data.train_x.astype(np.float64), data.train_y
    heap, clock, path = [], 0.0, []
    for version in range(steps):
        idle = np.setdiff1d(clients, [entry[1] for entry in heap])
        drawn = generator(0, "cohort", version).choice(
            len(idle), size=at_work - len(heap), replace=False, shuffle=False
        )
        for client in idle[drawn]:
            heapq.heappush(heap, (clock + 2 + SIZES[client] * SECONDS[client], client, version, theta.copy()))
        step, weight, ages = 0.0, 0.0, []
        for _ in range(buffer):
            clock, client, began, start = heapq.heappop(heap)
            own = data.owner == client
            gradient = 2 * x[own].T @ (x[own] @ start - y[own]) / own.sum()
            step = step + SIZES[client] * (1 + version - began) ** -exponent * gradient
            weight, ages = weight + SIZES[client], [*ages, version - began]
        theta = theta - lr * step / weight
        late = [entry for entry in heap if version + 1 - entry[2] > most]
        heap = [entry for entry in heap if version + 1 - entry[2] <= most]
        heapq.heapify(heap)
        path.append((theta.ravel(), clock, np.mean(ages), max(ages), len(late)))
    return path


@pytest.mark.parametrize(("nodes", "exponent", "most"), [(1, 0.5, 50), (4, 0.5, 50), (1, 0.0, 3)])
def test_agrees_with_a_queue_of_events(make_config, tmp_path, nodes, exponent, most):
    """Fifty steps on least squares in float64, with staleness weights, to 1e-10."""
    file = tmp_path / "speeds.csv"
    pl.DataFrame({"client": range(12), "seconds_per_example": SECONDS}).write_csv(file)
    clock = (
        "time_model.latency_seconds=1",
        *(f"time_model.bandwidth_{way}_bytes_per_second=1e18" for way in ("down", "up")),
    )
    sizes = ("population=12", "cohort_size=3", "client_batch_size=null", "rounds=50", f"nodes={nodes}")
    options = (FEDBUFF, "asynchronous.concurrency=2.3333", f"asynchronous.max_staleness={most}")
    own = ("task=regression", "partitioner=natural", "model=logistic", "weighting=examples", *PLAIN_SGD)
    exponents = f"asynchronous.staleness.exponent={exponent}"
    written = ("runtime.by_reference=false",) if nodes > 1 else ()
    config = make_config(
        "controller=fixed",
        "executor=loop",
        *clock,
        f"time_model.speeds={file}",
        *sizes,
        *options,
        *own,
        exponents,
        *written,
        base=(),
    )
    here = "tests.server.test_buffer"
    config = replace(config, dataset={"_target_": f"{here}.lines"}, model={"_target_": f"{here}.line"})
    rows, _, state = run(config)
    start = line(None, None).weight.detach().numpy().T
    path = event_queue(start, 0.1, 7, 3, exponent, most, 50)
    assert state.params.dtype == torch.float64
    np.testing.assert_allclose(state.params.numpy(), path[-1][0], rtol=0, atol=1e-10)
    for row, (_, seconds, mean, largest, late) in zip(rows, path, strict=True):
        assert row["simulated_seconds"] == pytest.approx(seconds, rel=1e-12)
        assert (row["staleness_mean"], row["staleness_max"], row["late_clients"]) == (mean, largest, late)
    assert max(row["staleness_max"] for row in rows) >= 3
    assert (sum(row["late_clients"] for row in rows) > 0) == (most == 3)


@pytest.mark.parametrize(
    "options",
    [
        ("nodes=3", "compression=qsgd", "executor=loop"),
        ("model=cnn", "model.channels=2", "model.hidden=4", "model.norm=batch", "executor=loop"),
        ("controller=schedule", "controller.starts.large=4", "controller.phases.large.cohort_size=6"),
    ],
    ids=lambda options: options[0],
)
def test_a_resumed_run_is_the_unbroken_one(make_config, options):
    options = (*FIXED, SPREAD, SLOW, FEDBUFF, "evaluate_every_rounds=1", "rounds=9", *options)
    config = make_config(*options, folder="whole")
    rows, _, whole = run(config)
    assert max(row["staleness_max"] for row in rows) > 1
    broken = replace(config, run_dir=config.run_dir + "_broken")
    _, _, state = run(replace(broken, rounds=5))
    assert len(state.under_way.models) > 1 and set(state.under_way.models) == set(state.under_way.versions.tolist())
    task.forget()
    again, _, resumed = run(on(broken, rounds=9))
    assert same_bits(whole, resumed) and comparable(again) == comparable(rows)
    assert torch.equal(whole.buffers, resumed.buffers) and torch.equal(whole.under_way.due, resumed.under_way.due)


def test_nodes_change_nothing_but_rounding(make_config):
    options = (*FIXED, SPREAD, SLOW, FEDBUFF, "rounds=8")
    rows, _, state = run(make_config(*options, folder="one"))
    others, _, other = run(make_config(*options, "nodes=4", "runtime.by_reference=false", folder="four"))
    torch.testing.assert_close(state.params, other.params, rtol=1e-5, atol=1e-7)
    names = ("simulated_seconds", "staleness_mean", "staleness_max", "global_batch", "bytes_up", "bytes_down")
    assert [[row[name] for name in names] for row in rows] == [[row[name] for name in names] for row in others]


def test_no_client_begins_twice_from_one_version(make_config, monkeypatch):
    """So no draw is ever made twice: draws are keyed by the client and the number of the version."""
    begun, draw = [], FedSGD.draw

    def watched(self, partition, clients, batch_sizes, seed, round_):
        begun.extend((client, round_) for client in clients.tolist())
        return draw(self, partition, clients, batch_sizes, seed, round_)

    config = make_config(*FIXED, SPREAD, SLOW, FEDBUFF, "asynchronous.concurrency=4", "rounds=40")
    monkeypatch.setattr(FedSGD, "draw", watched)
    rows, _, _ = run(config)
    asked = begun[-4 * 40 :]  # what comes before tries the executor out
    assert len(set(asked)) == len(asked) == 160
    assert sum(row["round"] * 4 for row in rows) - sum(round_ for _, round_ in asked) == pytest.approx(
        sum(4 * row["staleness_mean"] for row in rows)
    )


def test_who_began_in_the_phase_before_works_as_then(make_config):
    """Eight at work, then twelve: at the change four are left of the small phase, four examples each, and eight begin.

    All are equally fast by the example, so that the four come first, and two of the new with them.
    """
    phases = ("controller=schedule", "controller.starts.large=3", "controller.phases.large.cohort_size=6")
    large = ("controller.phases.large.client_batch_size=8",)
    rows, _, _ = run(make_config("executor=fused", "metrics=accuracy", *phases, *large, FEDBUFF, SLOW, "rounds=6"))
    assert [row["global_batch"] for row in rows] == [16, 16, 16, 4 * 4 + 2 * 8, 48, 48]
    assert [row["cohort_size"] for row in rows] == [4, 4, 4, 6, 6, 6]


def test_keys_leave_identities_as_they_were(make_config):
    values = json.loads(make_config().to_json())
    before = {name: value for name, value in values.items() if name != "asynchronous"}
    assert identity_of(values) == identity_of(before) == parse(before).identity()
