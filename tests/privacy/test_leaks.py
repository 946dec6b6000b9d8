"""Nothing but the noised sums may tell who was drawn: replies, record, state, files, logs and errors are compared."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from fedbatch import client_app
from fedbatch.core.errors import RunFailedError
from fedbatch.executors import choose, fused, memory
from fedbatch.node import private as node_private
from fedbatch.privacy.randomness import Randomness
from fedbatch.server.stopwatch import Stopwatch
from fedbatch.setup import task
from tests.conftest import run
from tests.privacy.releases import contribution

FIXED = ("controller=fixed", "privacy.target_epsilon=null", "privacy.noise_multiplier=1.0")
LOCAL = ("client_work=local_sgd", "client_work.epochs=null", "client_work.steps=2", "client_work.lr=0.1")
KINDS = [
    ("client_central",),
    ("client_central", "privacy.clip_quantile=0.5", "privacy.count_noise=2"),
    ("example_local",),
    ("example_local", *LOCAL),
    ("example_distributed", "privacy.min_clients=2"),
]
RELEASED = {"update_sum", "extra_sums"}
FOLLOWS = ("mean_update_norm", "gradient_snr", "test_loss", "test_accuracy", "noise_scale", "round_", "clip_norm")
"""Columns that follow from released sums."""
DRAWS = {"nobody": 1.0, "everybody": 0.0, "as drawn": None, "the first": "first"}


@pytest.fixture
def draw(monkeypatch):
    """Make the secret draw what one likes, which no configuration can."""
    original = Randomness.uniform

    def force(which):
        def uniform(self, count, *what):
            value = DRAWS[which]
            if value is None:
                return original(self, count, *what)
            return np.where(np.arange(count) == 0, 0.0, 1.0) if value == "first" else np.full(count, value)

        monkeypatch.setattr(Randomness, "uniform", uniform)

    return force


@pytest.fixture
def seen(monkeypatch):
    """All replies by node, without the values of what is released."""
    replies = []
    original = node_private.train_private

    def spy(plan, run_, privacy):
        reply = original(plan, run_, privacy)
        told = {name: str(getattr(reply, name)) for name in vars(reply) if name not in {*RELEASED, "clients"}}
        shapes = {name: (getattr(reply, name).shape, getattr(reply, name).dtype) for name in RELEASED}
        replies.append(told | shapes)
        return reply

    monkeypatch.setattr(client_app, "train_private", spy)
    return replies


def observed(config, caplog):
    """What anybody can read of a run but what follows from its released sums."""
    task.load.cache_clear()
    choose.tell_once.cache_clear()
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "fedbatch"):
        rows, summary, state = run(config)
    kept = [{k: repr(v) for k, v in row.items() if not k.startswith(FOLLOWS)} for row in rows]
    dropped = {
        "run_id",
        "not_finite",
        "params_sha256",
        "machine",
        "versions",
        *(k for k in summary if k.startswith(FOLLOWS)),
    }
    ledger = (Path(config.run_dir) / "ledger.jsonl").read_text().splitlines()
    logs = [r.getMessage() for r in caplog.records if r.name == "fedbatch" and "ms a client" not in r.getMessage()]
    return {
        "rows": [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in kept],
        "seconds": [{k for k in row if k.endswith("_seconds") and k != "simulated_seconds"} for row in rows],
        "summary": {k: repr(v) for k, v in summary.items() if k not in dropped and k != "measured_seconds"},
        "releases": [(line["round"], line["sample_rate"], line["clients"]) for line in map(json.loads, ledger)],
        "executors": state.executors,
        "totals": (
            state.totals.examples,
            state.totals.bytes_up,
            state.totals.bytes_down,
            state.totals.simulated_seconds,
        ),
        "files": sorted(p.name for p in Path(config.run_dir).rglob("*") if p.is_file()),
        "logs": logs,
    }


@pytest.mark.parametrize("executor", ["auto", "fused"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda k: "-".join(k[:2]))
def test_nothing_tells_who_was_drawn(make_config, draw, seen, caplog, kind, executor):
    mechanism, *more = kind
    found, told = {}, {}
    for which in ("as drawn", *DRAWS):  # once more, for the executor is measured once on a machine
        draw(which)
        options = (*FIXED, f"executor={executor}", *more, "rounds=2", "model=logistic")
        found[which] = observed(make_config(f"privacy={mechanism}", *options, folder="one"), caplog)
        told[which] = {repr(sorted(reply.items(), key=str)) for reply in seen}
        seen.clear()
        for path in Path(make_config(folder="one").run_dir).rglob("*"):
            path.unlink() if path.is_file() else None
    one = found["as drawn"]
    for which, other in found.items():
        for name in one:
            assert other[name] == one[name], (which, name)
        if mechanism != "client_central" or which != "nobody":  # then nobody is asked
            assert {t.replace("round', '1", "round', '0") for t in told[which]} == {
                t.replace("round', '1", "round', '0") for t in told["as drawn"]
            }


def test_times_of_private_rounds_are_whole_seconds(make_config):
    rows, _, _ = run(make_config("privacy=example_local", *FIXED, "rounds=3"))
    for row in rows:
        for name in ("plan", "client", "aggregate", "step", "evaluate"):
            assert row[f"{name}_seconds"] == int(row[f"{name}_seconds"])
        assert row["measured_seconds"] == int(row["measured_seconds"])


def test_whole_seconds_add_up_to_the_time(monkeypatch):
    moments = iter(np.arange(0.0, 100.0, 0.3))
    monkeypatch.setattr("fedbatch.server.stopwatch.time.perf_counter", lambda: float(next(moments)))
    total = 0.0
    clock = Stopwatch(coarse=True)
    for _ in range(300):
        clock.lap("client_seconds")
    total = clock.laps["client_seconds"]
    assert total == 90 == int(300 * 0.3)


@pytest.mark.parametrize("mechanism", ["client_central", "example_local"])
def test_running_out_of_memory_tells_no_numbers(make_config, draw, caplog, monkeypatch, mechanism):
    def full(job):
        if len(job.clients) > 16 and job.clip is not None:  # more than are compared
            raise MemoryError("out of memory with 17 of them")
        return fused.fused(job)

    draw("everybody")
    monkeypatch.setitem(choose.EXECUTORS, "fused", full)
    config = make_config(f"privacy={mechanism}", *FIXED, "executor=fused", "rounds=1", "model=logistic")
    with caplog.at_level(logging.DEBUG, "fedbatch"):
        run(config)
    assert not [r for r in caplog.records if "memory" in r.getMessage()]
    assert memory.log.name == "fedbatch"


@pytest.mark.parametrize("mechanism", ["client_central", "example_local"])
def test_an_error_tells_its_kind_and_no_numbers(make_config, draw, monkeypatch, mechanism):
    def broken(job):
        if len(job.clients) > 16:  # more than are compared
            raise ValueError(f"{len(job.clients)} drawn")
        return fused.fused(job)

    draw("everybody")
    monkeypatch.setitem(choose.EXECUTORS, "fused", broken)
    config = make_config(f"privacy={mechanism}", *FIXED, "executor=fused", "rounds=1", "model=logistic")
    with pytest.raises(RunFailedError) as caught:
        run(config)
    assert "drawn" not in str(caught.value)
    assert "ValueError" in str(caught.value) or "who was asked is a secret" in str(caught.value)


def test_how_many_of_a_secret_cohort_failed_is_not_recorded(make_config, draw, monkeypatch, caplog):
    draw("everybody")
    original = node_private.train_private

    def half(plan, run_, privacy):
        if plan.clients[0] == 0:
            raise RuntimeError("gone")
        return original(plan, run_, privacy)

    monkeypatch.setattr(client_app, "train_private", half)
    config = make_config("privacy=client_central", *FIXED, "executor=fused", "nodes=2", "rounds=1")
    with caplog.at_level(logging.DEBUG, "fedbatch"):
        rows, _, _ = run(config)
    assert np.isnan(rows[0]["rejected_replies"]) and not [r for r in caplog.records if "left out" in r.getMessage()]


def test_what_runs_them_is_chosen_on_the_same_examples_whoever_was_drawn(make_task, monkeypatch):
    run_ = make_task("example_local", "executor=auto")
    jobs = []

    def chosen(job, witness, is_told):
        jobs.append((job.draw.positions.tolist(), witness().draw.positions.tolist()))
        return "fused"

    monkeypatch.setattr(run_.executors, "chosen", chosen)
    for round_ in range(5):
        reply = contribution(run_, np.arange(4), round_=round_, executor="auto")
        assert reply.executor == "fused" and isinstance(reply.update_sum, torch.Tensor)
    assert len(jobs) == 5 and all(job == jobs[0] for job in jobs)


def test_what_runs_clients_is_chosen_on_the_same_ones_whoever_was_drawn(make_task, monkeypatch):
    run_ = make_task("client_central", "executor=auto")
    jobs = []

    def chosen(job, witness, is_told):
        jobs.append((job.clients.tolist(), witness().clients.tolist()))
        return "fused"

    monkeypatch.setattr(run_.executors, "chosen", chosen)
    for clients in ([3, 9], [11], [0, 1, 2, 17]):
        contribution(run_, np.array(clients), executor="auto")
    assert len(jobs) == 3 and all(job == jobs[0] for job in jobs)


def test_times_of_private_queries_are_whole_seconds(make_config):
    labels = ("active=margin", "active.scope=local_only", "active.seed_labels=200", "active.queries=1", "rounds=4")
    rows, _, _ = run(make_config("privacy=client_central", *FIXED, *labels, "executor=fused"))
    assert {row["query_seconds"] for row in rows} <= {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}


def test_the_hash_of_the_data_in_the_folder_is_keyed(make_config, tmp_path):
    for name in ("one", "two"):
        secret = f"privacy.secret_file={tmp_path / name / 'secret'}"
        run(make_config("privacy=client_central", *FIXED, "executor=fused", "rounds=1", secret, folder=name + "-run"))
    found = [json.loads((tmp_path / f"{name}-run" / "run.json").read_text())["data"] for name in ("one", "two")]
    assert found[0] != found[1], "the same data under two secrets"
