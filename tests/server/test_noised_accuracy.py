"""Accuracy on held-out data under privacy: what it costs, whose noise it has, and that nothing else is told."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedbatch import client_app, server_app
from fedbatch.core.errors import ConfigError
from fedbatch.metrics.statistics import centred_right
from fedbatch.node.held_out import noised_slope as answer
from fedbatch.privacy import epsilon
from fedbatch.runtime.local import LocalGrid
from fedbatch.server.noised_accuracy import held_out_units, noised_accuracy
from fedbatch.wire.check import MessageError
from fedbatch.wire.held_out import SlopePlan
from tests.conftest import run

HELD = ("client_holdout=0.3", "privacy.accuracy_noise=5")
NOISE = ("controller=fixed", "privacy.target_epsilon=null", "privacy.noise_multiplier=1.0", "executor=fused")
MECHANISMS = {
    "client_central": ("client_central",),
    "example_local": ("example_local",),
    "example_central": ("example_central",),
    "example_distributed": ("example_distributed", "privacy.min_clients=4"),
}


def served(loaded):
    Path(loaded.config.run_dir).mkdir(parents=True, exist_ok=True)
    server = server_app.new_server(loaded, LocalGrid(client_app.app, 1, {"config": loaded.config.to_json()}))
    return server, server_app.start(server)


@pytest.mark.parametrize("kind", MECHANISMS)
def test_every_evaluation_is_planned_and_charged(make_config, kind):
    mechanism, *more = MECHANISMS[kind]
    config = make_config(f"privacy={mechanism}", *NOISE, *more, *HELD, "rounds=5", "evaluate_every_rounds=2")
    rows, summary, state = run(config)
    charged = [(r.sample_rate, r.noise_multiplier, r.clients) for r in state.ledger.releases if r.question]
    assert charged == [(1.0, 5.0, None)] * 3, "after rounds 2, 4 and the last"
    guarantee = summary["privacy"]
    phases = [(p["sample_rate"], p["noise_multiplier"], p["steps"]) for p in guarantee["schedule"]]
    assert (1.0, 5.0, 3) in phases and guarantee["epsilon"] == pytest.approx(epsilon(phases, guarantee["delta"]))
    assert guarantee["planned_epsilon"] == pytest.approx(guarantee["epsilon"])
    assert ["noised_accuracy" in row and math.isfinite(row["noised_accuracy"]) for row in rows] == [
        False,
        True,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("kind", MECHANISMS)
def test_without_noise_it_is_the_accuracy(make_task, kind):
    mechanism, *more = MECHANISMS[kind]
    loaded = make_task(mechanism, *NOISE, *more, *HELD, "privacy.noise_multiplier=0")
    server, state = served(loaded)
    found, _ = noised_accuracy(server, loaded.privacy, state)
    held = [loaded.held_out(client) for client in range(20)]
    right = [
        float((loaded.node_model.module(loaded.train_x[h]).argmax(1) == loaded.train_y[h]).double().mean())
        for h in held
    ]
    by_client, sizes = np.array(right), np.array([len(h) for h in held])
    expected = by_client.mean() if mechanism == "client_central" else (by_client * sizes).sum() / sizes.sum()
    assert found["noised_accuracy"] == pytest.approx(expected, abs=1e-9)
    assert held_out_units(server, loaded.privacy, np.arange(20)) == (
        20 if mechanism == "client_central" else sizes.sum()
    )


@pytest.mark.parametrize("kind", MECHANISMS)
def test_its_noise_is_what_is_accounted(make_task, kind):
    mechanism, *more = MECHANISMS[kind]
    without = make_task(mechanism, *NOISE, *more, *HELD, "rounds=400", "privacy.noise_multiplier=0")
    server, state = served(without)
    exact, _ = noised_accuracy(server, without.privacy, state)
    loaded = make_task(mechanism, *NOISE, *more, *HELD, "rounds=400")
    server, state = served(loaded)
    values = [noised_accuracy(server, loaded.privacy, replace(state, round=round_))[0] for round_ in range(400)]
    units = held_out_units(server, loaded.privacy, np.arange(20))
    clients = {"client_central": 1, "example_central": 1, "example_local": 20, "example_distributed": 20 / 4}[kind]
    expected = 5.0 * 0.5 * clients**0.5 / units
    noise = np.array([value["noised_accuracy"] for value in values]) - exact["noised_accuracy"]
    assert noise.std() == pytest.approx(expected, rel=0.15) and abs(noise.mean()) < 4 * expected / 20
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.2
    assert values[0]["noised_accuracy_se"] == pytest.approx(math.hypot(expected, 0.5 / units**0.5))


def test_one_example_moves_the_sum_by_at_most_a_half():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [5.0, 0.0]])
    assert centred_right(logits, torch.tensor([0, 0, 1])).tolist() == [0.5, -0.5, -0.5]
    sequence = torch.tensor([[[2.0, 1.0], [0.0, 1.0], [5.0, 0.0]]])
    assert centred_right(sequence, torch.tensor([[0, 0, -100]])).tolist() == [0.0]


def test_a_node_answers_no_question_for_which_there_is_no_noise(make_task):
    loaded = make_task("example_local", *NOISE, *HELD)
    ask = SlopePlan(loaded.node_model.params.clone(), np.arange(4), 0, 1.0, 0.5)
    with pytest.raises(MessageError, match="no noise for a question about 'slope'"):
        answer(ask, loaded, loaded.privacy)
    with pytest.raises(MessageError, match="no noise for a question about 'labels'"):
        answer(SlopePlan(**{**vars(ask), "statistic": "labels"}), loaded, loaded.privacy)


def test_a_budget_that_a_controller_may_spend_pays_for_it_too(make_config):
    options = (
        "controller=noise_scale_switch",
        "controller.large.cohort_size=8",
        "controller.large.client_batch_size=8",
    )
    config = make_config(
        "privacy=client_central", *options, *HELD, "privacy.target_epsilon=4", "rounds=4", "evaluate_every_rounds=1"
    )
    rows, summary, state = run(config)
    assert sum(bool(r.question) for r in state.ledger.releases) == 4 and summary["privacy"]["epsilon"] <= 4
    assert 0 < summary["privacy"]["epsilon_rdp"] <= 4 and math.isfinite(rows[-1]["noised_accuracy"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("privacy.accuracy_noise=5",), "set client_holdout=0.2"),
        (("client_holdout=0.2",), "privacy.accuracy_noise=10 to use what is held out"),
        ((*HELD, "privacy.accuracy_noise=0"), "privacy.accuracy_noise"),
    ],
)
def test_refusals(make_config, options, said):
    with pytest.raises(ConfigError, match=said):
        run(make_config("privacy=client_central", *NOISE, *options))
