"""Runs that query: what they train on, what they record, and that they go on where they stopped."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedbatch import client_app, server_app
from fedbatch.api import execute
from fedbatch.cli import app
from fedbatch.clients.fedsgd import FedSGD
from fedbatch.core.errors import RunFailedError
from fedbatch.node.labels import LabelledPartition, NodeFiles
from fedbatch.results.store import read_rows
from fedbatch.runtime.local import LocalGrid
from fedbatch.server.checkpoint import load_latest
from fedbatch.server.label import reset_training
from fedbatch.setup import task

QUERIES = ("active.seed_labels=30", "active.labels_per_query=25", "active.queries=2", "rounds=6", "controller=fixed")


def run(config):
    execute(config)
    folder = Path(config.run_dir)
    rows = read_rows(folder / "rounds.jsonl")
    exact = [{k: v for k, v in row.items() if not k.endswith("_seconds") and v == v} for row in rows]
    return exact, load_latest(folder / "checkpoints")


@pytest.mark.parametrize("choice", ["cluster_margin", pytest.param("random", marks=pytest.mark.slow)])
def test_the_record_counts_labels_and_only_they_are_trained_on(make_config, monkeypatch, choice):
    drawn, draw = [set() for _ in range(6)], FedSGD.draw

    def noted(self, partition, clients, batch_sizes, seed, round_):
        found = draw(self, partition, clients, batch_sizes, seed, round_)
        for positions, counts in zip(found.positions, found.counts, strict=True):
            drawn[round_] |= set(positions[0, : counts[0]].tolist())
        return found

    monkeypatch.setattr(FedSGD, "draw", noted)
    options = ("sampling=all", "client_batch_size=null", "nodes=2", "executor=loop")
    rows, state = run(make_config(f"active={choice}", *QUERIES, *options))
    assert [len(positions) for positions in drawn] == [30, 30, 55, 55, 80, 80]
    assert drawn[0] == drawn[1] < drawn[2] == drawn[3] < drawn[4] == drawn[5]
    assert [row["labels_used"] for row in rows] == [30, 30, 55, 55, 80, 80]
    assert [row["global_batch"] for row in rows] == [30, 30, 55, 55, 80, 80]
    assert [row["queries"] for row in rows] == [0, 0, 1, 1, 2, 2]
    assert int(state.labels.num_labelled.sum()) == 80
    assert all(0 < row["class_balance"] <= 1 for row in rows)
    up = [row["query_bytes_up"] for row in rows]
    assert up[0] == up[1] < up[2] == up[3] < up[4]
    if choice == "cluster_margin":
        covered = [row["clusters_covered"] for row in rows[2:]]
        assert rows[0]["clusters"] is None and covered[0] <= covered[2] <= min(80, rows[2]["clusters"])


@pytest.mark.slow
def test_a_run_that_stopped_goes_on_as_if_it_had_not(make_config):
    options = ["active=cluster_margin", *QUERIES, "active.retrain=true", "checkpoint_every_rounds=3"]
    whole, end = run(make_config(*options, folder="whole"))
    config = make_config(*options, folder="stopped")
    run(config)
    for path in (Path(config.run_dir) / "checkpoints").glob("*6.ckpt"):
        path.unlink()  # as if it had been killed after query 2, with the checkpoint of round 3 on disk
    rows, state = run(replace(config, resume=config.run_dir))
    assert rows == whole and np.array_equal(state.params, end.params)


def test_retraining_starts_from_the_first_model(make_config):
    config = make_config("active=random", *QUERIES, "server_optimizer=adam")
    run_ = task.load(config.to_json())
    server = server_app.new_server(run_, LocalGrid(client_app.app, 1, {"config": config.to_json()}))
    state = server_app.start(server)
    server.optimizer.step(state.params.clone(), 0.1)
    again = reset_training(server, replace(state, round=4))
    assert np.array_equal(again.params, run_.new_model().params) and again.round == 4
    assert not again.optimizer["state"] and again.params is server.optimizer.model.params


@pytest.mark.slow
def test_a_private_schedule_costs_what_was_planned_though_every_stage_starts_anew(make_config):
    phases = ["controller=schedule", "controller.starts.large=2", "controller.phases.large.cohort_size=16"]
    sizes = ["client_batch_size=null", "controller.phases.large.client_batch_size=null", "cohort_size=2"]
    labels = ["active=margin", "active.scope=local_only", "active.seed_labels=40", "active.labels_per_query=20"]
    private = ["privacy=client_central", "privacy.target_epsilon=4", "privacy.noise_schedule=proportional"]
    config = make_config(
        *phases, *sizes, *labels, "active.queries=2", "active.retrain=true", "rounds=6", *private, "population=20"
    )
    rows, _ = run(config)
    assert [row["phase"] for row in rows] == ["small"] * 2 + ["large"] * 4
    guarantee = json.loads((Path(config.run_dir) / "summary.json").read_text())["privacy"]
    assert (
        guarantee["epsilon"] == pytest.approx(guarantee["planned_epsilon"], rel=1e-3) and guarantee["epsilon"] <= 4.01
    )
    assert rows[-1]["global_batch"] < 80, "labelled examples of a cohort, not whole pools"


@pytest.mark.parametrize("choice", ["margin", "badge"])
def test_a_model_that_diverged_ends_the_run_in_one_line(make_config, choice):
    scope = "active.scope=local_only" if choice == "badge" else "active.scope=global_only"
    config = make_config(f"active={choice}", scope, *QUERIES, "server_optimizer.lr=1e30", "target_value=null")
    with pytest.raises(RunFailedError, match="training has diverged") as caught:
        run(config)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["cluster_margin", "margin", "badge"])
def test_choices_do_not_depend_on_the_number_of_nodes(make_config, choice):
    options = [f"active={choice}", *QUERIES, "executor=loop"]
    (_, one), (_, two) = (run(make_config(*options, f"nodes={n}", folder=str(n))) for n in (1, 3))
    assert np.array_equal(one.labels.num_labelled, two.labels.num_labelled)


@pytest.mark.slow
def test_a_private_run_tells_nothing_of_labels_but_numbers_that_were_fixed(make_config):
    private = ["privacy=client_central", "privacy.target_epsilon=null", "privacy.noise_multiplier=1.0"]
    rows, _ = run(make_config("active=cluster_margin", "active.scope=local_only", *QUERIES, *private))
    assert [row["labels_used"] for row in rows] == [30, 30, 55, 55, 80, 80]
    assert {row["class_balance"] for row in rows} == {row["clusters_covered"] for row in rows} == {None}


def test_a_labelled_partition_is_a_partition_of_the_labels(tmp_path):
    class Tens:
        def lookup(self, clients, slots):
            return 10 * clients + slots

    files = NodeFiles(tmp_path / "node")
    owners, slots = np.array([7, 2, 7, 2]), np.array([5, 3, 0, 9])
    files.save_labels(0, LabelledPartition.of(Tens(), np.array([2, 4, 7]), owners, slots))
    labels = files.labels(0, Tens())
    assert labels.sizes(np.array([2, 4, 7, 9])).tolist() == [2, 0, 2, 0]
    assert labels.lookup(np.array([[2], [7]]), np.array([[0, 1]])).tolist() == [[23, 29], [70, 75]]
    assert labels.owners.tolist() == [2, 2, 7, 7]


@pytest.mark.slow
@pytest.mark.parametrize("change", ["rounds=9", "nodes=2"])
def test_what_would_lose_the_labels_cannot_change_on_resume(monkeypatch, capsys, tmp_path, change):
    start = [*"active=margin active.queries=1 rounds=4 controller=fixed dataset=digits population=20".split()]
    for arguments, code in ([*start, f"run_dir={tmp_path}/out"], None), ([f"resume={tmp_path}/out", change], 2):
        monkeypatch.setattr(sys, "argv", ["fedbatch", *arguments])
        if code is None:
            app.main()
            continue
        with pytest.raises(SystemExit) as stopped:
            app.main()
        assert stopped.value.code == code
    name = change.split("=")[0]
    assert f"fedbatch: {name} cannot change on resume: queries are planned for 4 rounds" in capsys.readouterr().err
