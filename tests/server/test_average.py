"""Averaged parameters of a run: what they are, their scores, checkpoints, phases, and who gets them."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fedbatch
from fedbatch import client_app, server_app
from fedbatch.runtime.local import LocalGrid
from fedbatch.server.checkpoint import load_latest
from fedbatch.server.rounds import run_rounds
from fedbatch.setup import task
from tests.conftest import run

EVERY = ("evaluate_every_rounds=2", "controller=fixed")


def iterates(config):
    loaded = task.load(config.to_json())
    server = server_app.new_server(loaded, LocalGrid(client_app.app, 1, {"config": loaded.config.to_json()}))
    state = server_app.start(server)
    yield from run_rounds(server, state)


@pytest.mark.parametrize(
    ("averaging", "weights"),
    [
        (("averaging=polynomial", "averaging.power=0"), [0.25] * 4),
        (("averaging=ema", "averaging.decay=0.5"), [1 / 8, 1 / 8, 1 / 4, 1 / 2]),
    ],
)
def test_it_is_the_average_of_the_parameters_after_each_round(make_config, averaging, weights):
    kept = [
        (after.params.clone(), after.average["params"].clone())
        for after, _ in iterates(make_config(*EVERY, *averaging))
    ]
    expected = sum(w * params for w, (params, _) in zip(weights, kept, strict=True))
    torch.testing.assert_close(kept[-1][1], expected)


def test_scores_are_of_the_average_and_training_goes_on_from_the_last(make_config):
    rows, summary, state = run(make_config(*EVERY, "averaging=polynomial"))
    plain_rows, _, plain = run(make_config(*EVERY, folder="plain"))
    assert torch.equal(state.params, plain.params), "training is the same"
    assert ["average_test_accuracy" in row and row["average_test_accuracy"] is not None for row in rows] == [
        False,
        True,
    ] * 2
    assert "average_test_accuracy" not in plain_rows[-1]
    assert summary["average_test_loss"] == rows[-1]["average_test_loss"] != summary["test_loss"]


def test_load_model_and_evaluate_take_the_average(make_config):
    config = make_config(*EVERY, "averaging=polynomial")
    _, summary, state = run(config)
    module, last = fedbatch.load_model(config.run_dir), fedbatch.load_model(config.run_dir, last=True)
    flat = torch.cat([p.detach().flatten() for p in module.parameters()])
    assert torch.equal(flat, state.average["params"])
    assert torch.equal(torch.cat([p.detach().flatten() for p in last.parameters()]), state.params)
    assert fedbatch.evaluate(config.run_dir)["test_loss"] == pytest.approx(summary["average_test_loss"])


def test_it_is_resumed_bit_for_bit(make_config):
    options = (*EVERY, "averaging=ema")
    whole = run(make_config(*options, "rounds=4"))[2]
    half = make_config(*options, "rounds=2", "checkpoint_every_rounds=1", folder="half")
    run(half)
    resumed = run(replace(half, rounds=4, resume=half.run_dir))[2]
    for name in ("params", "buffers", "rounds"):
        assert torch.equal(whole.average[name], resumed.average[name]), name


def test_a_checkpoint_from_before_has_none(make_config):
    config = make_config(*EVERY)
    state = run(config)[2]
    values = torch.load(io.BytesIO(state.to_bytes()), weights_only=True)
    assert values.pop("average") == {}
    buffer = io.BytesIO()
    torch.save(values, buffer)
    assert type(state).from_bytes(buffer.getvalue()).average == {}


def test_a_larger_batch_moves_an_ema_further(make_config):
    schedule = ("controller=schedule", "controller.starts.large=2", "controller.phases.large.cohort_size=8")
    options = (*schedule, "controller.phases.large.client_batch_size=8", "averaging=ema", "averaging.decay=0.9")
    kept = [(a.params.clone(), a.average["params"].clone()) for a, _ in iterates(make_config(*options, "rounds=30"))]
    (_, before), (params, after) = kept[-2:]
    torch.testing.assert_close(after, before + (1 - 0.9**4) * (params - before), msg="four times the batch")


@pytest.mark.parametrize("norm", ["batch"])
def test_buffers_are_averaged_too(make_config, norm):
    options = (
        "model=cnn",
        "model.channels=2",
        "model.hidden=4",
        f"model.norm={norm}",
        "averaging=polynomial",
        "averaging.power=0",
    )
    kept = [after for after, _ in iterates(make_config(*EVERY, *options))]
    assert kept[-1].buffers.numel() and not torch.equal(kept[-1].average["buffers"], kept[-1].buffers)


def test_a_new_model_of_active_learning_starts_a_new_average(make_config):
    options = (
        "active=random",
        "active.queries=2",
        "active.labels_per_query=20",
        "active.seed_labels=40",
        "active.retrain=true",
        "averaging=ema",
    )
    counts = [int(after.average["rounds"]) for after, _ in iterates(make_config(*EVERY, *options, "rounds=6"))]
    assert counts == [1, 2, 1, 2, 1, 2]


def test_under_privacy_it_costs_nothing(make_config):
    private = ("privacy=client_central", "privacy.noise_multiplier=1", "privacy.target_epsilon=null", *EVERY)
    one = run(make_config(*private, "averaging=ema"))[1]
    other = run(make_config(*private, folder="other"))[1]
    assert one["epsilon"] == other["epsilon"] and np.isfinite(one["average_test_accuracy"])


def test_the_end_of_a_run_says_both(make_config, capsys):
    from fedbatch.cli.run import report

    config = make_config(*EVERY, "averaging=polynomial")
    run(config)
    report(Path(config.run_dir))
    summary = json.loads((Path(config.run_dir) / "summary.json").read_text())
    assert f"averaged parameters: accuracy {summary['average_test_accuracy']:.3f}" in capsys.readouterr().out
    assert load_latest(Path(config.run_dir) / "checkpoints").average
