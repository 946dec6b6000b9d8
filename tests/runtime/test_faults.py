"""What goes wrong, in whole runs: who is left out, what the result equals, and that it reproduces."""

import time

import numpy as np
import pytest
import torch

from fedbatch.core.errors import ConfigError, RunFailedError
from fedbatch.executors import choose
from fedbatch.runtime.faults import Faults
from fedbatch.runtime.local import LocalGrid
from fedbatch.server.exchange import NoAnswerError
from fedbatch.setup import task
from tests.conftest import run

CLIENTS = (
    "faults=some",
    "nodes=10",
    "population=10",
    "cohort_size=10",
    "sampling=all",
    "controller=fixed",
    "rounds=3",
    "executor=fused",
    "client_batch_size=8",
)


@pytest.fixture
def faulty(make_config):
    return lambda *overrides, **options: make_config(*CLIENTS, *overrides, **options)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("fault", ["dropout", "crash", "corrupted", "not_finite", "heavy"])
def test_who_fails_is_left_out_and_counted(faulty, fault, share):
    rows, _, _ = run(faulty(f"faults.{fault}={share}"))
    assert len(rows) == 3
    assert {row["rejected_replies"] for row in rows} == {round(10 * share)}
    assert {row["cohort_size"] for row in rows} == {10 - round(10 * share)}
    assert all(np.isfinite(row["train_loss"]) for row in rows)


@pytest.mark.parametrize("fault", ["dropout", "not_finite", "heavy", "corrupted"])
def test_the_mean_is_that_of_the_others(faulty, fault):
    """Against a run in which the struck clients were never asked."""
    config = faulty(f"faults.{fault}=0.3", "rounds=1")
    struck = Faults(**{fault: 0.3}).struck(fault, list(range(2, 12)), config.seed, 0)
    _, _, spoiled = run(config)
    original = LocalGrid.send_and_receive

    def others(self, messages, *, timeout=None):
        for reply in original(self, messages, timeout=timeout):
            if reply.metadata.src_node_id not in struck or reply.metadata.message_type != "train":
                yield reply

    LocalGrid.send_and_receive = others
    try:
        _, _, clean = run(faulty("faults=none", "rounds=1", folder="clean"))
    finally:
        LocalGrid.send_and_receive = original
    assert (spoiled.params - clean.params).norm() <= 1e-6 * clean.params.norm()


def test_duplicates_and_stale_answers_are_not_counted(faulty):
    _, once, _ = run(faulty("faults=none", folder="clean"))
    _, twice, _ = run(faulty("faults.duplicate=1.0", folder="twice"))
    assert twice["params_sha256"] == once["params_sha256"]
    stale, _, _ = run(faulty("faults.stale=0.5", folder="stale"))
    assert [row["rejected_replies"] for row in stale] == [0, 5, 5]


def test_a_straggler_is_waited_for_until_the_time_limit(faulty):
    start = time.monotonic()
    rows, _, _ = run(
        faulty("faults.straggler=0.1", "faults.straggler_seconds=20", "round_timeout_seconds=1.5", "rounds=1")
    )
    assert rows[0]["rejected_replies"] == 1 and rows[0]["cohort_size"] == 9
    assert 1.4 < rows[0]["client_seconds"] < 1.5 * 1.1 and time.monotonic() - start < 20
    patient, _, _ = run(faulty("faults.straggler=0.1", "faults.straggler_seconds=0.3", "rounds=1", folder="patient"))
    assert patient[0]["rejected_replies"] == 0 and patient[0]["client_seconds"] >= 0.3


def test_too_few_valid_answers_end_the_run(faulty):
    with pytest.raises(
        NoAnswerError,
        match=r"valid answers of 5 clients in round 0, fewer than min_clients=6: node 6 .client 4.: no answer",
    ):
        run(faulty("faults.dropout=0.5", "min_clients=6"))
    assert len(run(faulty("faults.dropout=0.5", "min_clients=5", folder="enough"))[0]) == 3


def test_faults_reproduce_and_depend_on_the_seed(faulty):
    mixed = ("faults.dropout=0.2", "faults.not_finite=0.1", "faults.adversaries=0.2", "faults.duplicate=0.3")
    hashes = [run(faulty(*mixed, folder=f"run{i}"))[1]["params_sha256"] for i in range(2)]
    assert hashes[0] == hashes[1]
    sets = [Faults(dropout=0.3).struck("dropout", list(range(10)), seed, 0) for seed in range(5)]
    assert len({frozenset(s) for s in sets}) > 1 and all(len(s) == 3 for s in sets)


@pytest.mark.parametrize("attack", ["sign_flip", "scaled", "little"])
@pytest.mark.parametrize("rule", ["median", "trimmed_mean", "krum"])
def test_robust_rules_keep_learning_where_the_mean_does_not(faulty, rule, attack):
    strength = {"sign_flip": 8, "scaled": 1e4, "little": 1.0}[attack]
    attacked = (
        "faults.adversaries=0.2",
        f"faults.attack={attack}",
        f"faults.strength={strength}",
        "rounds=15",
        "evaluate_every_rounds=15",
        "client_batch_size=null",
        "model=logistic",
        "server_optimizer.lr=0.5",
    )
    _, summary, _ = run(faulty(f"aggregator={rule}", *attacked))
    assert summary["test_accuracy"] > 0.6
    if attack == "sign_flip" and rule == "median":
        _, mean, _ = run(faulty(*attacked, folder="mean"))
        assert mean["test_accuracy"] < 0.4
        _, longer, _ = run(faulty(*attacked, "faults.strength=20", folder="longer"))  # which the mean bounds
        assert longer["test_accuracy"] > 0.6


def test_single_updates_give_the_mean_of_sums(faulty):
    _, summed, one = run(faulty("faults=none", "weighting=uniform", folder="sum"))
    _, single, two = run(faulty("faults=none", "aggregator=trimmed_mean", "aggregator.share=0", folder="single"))
    assert (one.params - two.params).norm() < 1e-5 * one.params.norm()
    assert single["noise_scale"] == pytest.approx(summed["noise_scale"], rel=1e-3)


def test_not_finite_clients_of_a_shared_node_are_excluded_by_name(faulty, monkeypatch):
    config = faulty("faults=none", "nodes=1", "aggregator=median", "rounds=1")
    run_task = task.load(config.to_json())
    size = int(run_task.partition.sizes(np.array([4]))[0])
    run_task.train_x[run_task.partition.lookup(np.full(size, 4), np.arange(size))] = float("nan")
    rows, _, _ = run(config)
    assert rows[0]["excluded_clients"] == 1 and rows[0]["cohort_size"] == 9


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["faults.dropout=1.5"], r"faults.dropout must be in \[0, 1\]"),
        (["faults.attack=lie"], "faults: attack must be one of sign_flip, scaled, little"),
        (["min_clients=0"], "min_clients must be in"),
        (
            ["faults=none", "aggregator=median", "privacy=client_central", "privacy.target_epsilon=5"],
            "aggregator: robust",
        ),
        (["faults=none", "aggregator=krum", "aggregator.select=0"], "aggregator.select must be in"),
        (["faults=none", "aggregator=median", "noise_scale.halves=true"], "measured with aggregator=mean only"),
    ],
)
def test_refused(faulty, overrides, message):
    with pytest.raises(ConfigError, match=message):
        run(faulty(*overrides))


def test_out_of_memory_halves_the_job(faulty, monkeypatch):
    _, whole, one = run(faulty("faults=none", "nodes=1", folder="whole"))
    right, sizes = choose.EXECUTORS["fused"], []

    def small_memory(job):
        sizes.append(len(job.clients))
        if len(job.clients) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return right(job)

    monkeypatch.setitem(choose.EXECUTORS, "fused", small_memory)
    _, halved, two = run(faulty("faults=none", "nodes=1", folder="halved"))
    assert max(sizes) == 10 and min(sizes) <= 3
    assert (one.params - two.params).norm() < 1e-4 * one.params.norm()
    assert halved["noise_scale"] == pytest.approx(whole["noise_scale"], rel=1e-4)


def test_one_client_that_does_not_fit_is_an_error(faulty, monkeypatch):
    right, compared = choose.EXECUTORS["fused"], []

    def none(job):
        compared.append(job)
        if len(compared) > 2:  # after the comparison with the loop, in two precisions
            raise torch.OutOfMemoryError("out of memory")
        return right(job)

    monkeypatch.setitem(choose.EXECUTORS, "fused", none)
    with pytest.raises(RunFailedError, match="out of memory"):
        run(faulty("faults=none", "nodes=1"))
