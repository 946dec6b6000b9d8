"""Runs that end on a plateau, and the best model, which outlives later rounds."""

import json
import math
from pathlib import Path

import pytest
import torch

from fedbatch.api import execute
from fedbatch.config.compose import composed
from fedbatch.config.schema import parse
from fedbatch.core.errors import ConfigError
from fedbatch.results.store import read_rows
from fedbatch.server.best import Best
from fedbatch.server.checkpoint import load_latest
from fedbatch.setup.learning import Target
from fedbatch.trained import evaluate, export, load_model


def values(metric, min_delta, series):
    target = Target(metric, is_higher_better=metric == "test_accuracy")
    best = Best()
    for number, value in enumerate(series, start=1):
        best = best.after({"rounds": number, metric: value}, target, min_delta)
    return best


def test_higher_and_lower_scores_and_rounds_without_one():
    assert values("test_accuracy", 0.0, [0.5, 0.7, math.nan, 0.6, 0.7]) == Best(0.7, 2, 2)
    assert values("test_loss", 0.0, [1.0, 0.7, math.nan, 0.8]) == Best(0.7, 2, 1)
    assert values("test_loss", 0.25, [1.0, 0.8, 0.7]) == Best(0.7, 3, 0)  # 0.3 below the best that counted
    assert math.isnan(values("test_loss", 0.0, [math.nan]).value)


def run(config):
    execute(config)
    return Path(config.run_dir)


PLATEAU = ("evaluate_every_rounds=1", "rounds=40", "patience=3", "min_delta=0.5", "keep_best=true")


def test_a_run_ends_when_nothing_better_comes(make_config, caplog):
    caplog.set_level("INFO", logger="fedbatch")
    rows = read_rows(run(make_config(*PLATEAU)) / "rounds.jsonl")
    assert len(rows) == 4  # the first value, and three that are not half better
    assert "test accuracy has not become better than" in caplog.text


def test_what_waited_goes_on_from_a_checkpoint(make_config):
    whole = read_rows(run(make_config(*PLATEAU)) / "rounds.jsonl")
    config = make_config(*PLATEAU[:-1], "rounds=2", folder="parts")
    folder = run(config)
    assert load_latest(folder / "checkpoints").best.waited == 1
    saved = json.loads(config.to_json()) | {"resume": str(folder), "rounds": 40}
    execute(parse(saved))
    assert len(read_rows(folder / "rounds.jsonl")) == len(whole)


def test_the_best_model_is_that_of_its_round(make_config, tmp_path):
    options = "evaluate_every_rounds=1", "keep_best=true", "rounds=25", "server_optimizer.lr=1.5"
    folder = run(make_config(*options))
    rows = read_rows(folder / "rounds.jsonl")
    accuracies = [row["test_accuracy"] for row in rows]
    first = accuracies.index(max(accuracies))
    assert first < len(rows) - 1  # else this says nothing
    assert evaluate(folder, best=True)["test_accuracy"] == pytest.approx(max(accuracies), abs=1e-9)
    assert evaluate(folder)["test_accuracy"] == pytest.approx(accuracies[-1], abs=1e-9)
    export(folder, tmp_path / "best.pt", best=True)
    saved, model = torch.load(tmp_path / "best.pt", weights_only=True), load_model(folder, best=True).state_dict()
    assert all(torch.equal(saved[name], model[name]) for name in model)


def test_a_run_without_a_best_model_says_how_to_get_one(make_config):
    folder = run(make_config())
    with pytest.raises(ConfigError, match="keep_best=true"):
        evaluate(folder, best=True)


def test_a_score_of_averaged_parameters_needs_them():
    with pytest.raises(ConfigError, match="averaging=polynomial"):
        parse(composed(["target_metric=average_test_accuracy", "run_dir=x"]))
