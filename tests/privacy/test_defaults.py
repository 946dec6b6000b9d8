"""What one word brings: a mechanism's own controller, sizes and rate, which everything that the user says overrides."""

import logging
import math

import numpy as np
import pytest

from fedbatch.config.compose import composed
from fedbatch.core.files import from_json
from fedbatch.privacy.statement import headline
from fedbatch.setup import task
from tests.conftest import TINY, run

MECHANISMS = ("client_central", "example_distributed", "example_local")


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_mechanism_brings_what_suits_it(mechanism):
    config = composed([f"privacy={mechanism}", "population=37"])
    assert config["controller"]["_target_"].endswith("Fixed") and config["cohort_size"] == 37
    assert config["server_optimizer"]["momentum"] == 0 and "package" not in config and "defaults" not in config


@pytest.mark.parametrize(
    ("said", "key", "value"),
    [
        ("cohort_size=5", "cohort_size", 5),
        ("controller=doubling", "controller._target_", "fedbatch.controllers.doubling"),
        ("server_optimizer=adam", "server_optimizer.lr", 0.01),
        ("server_optimizer=sgd", "server_optimizer.lr", 0.1),
        ("privacy.clip_norm=3", "privacy.clip_norm", 3),
        ("experiment=fedavg", "server_optimizer.lr", 1.0),
        ("experiment=fedavg", "client_batch_size", 10),
        ("experiment=switching", "controller._target_", "fedbatch.controllers.NoiseScaleLadder"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_what_the_user_says_wins(said, key, value, first):
    words = [said, "privacy=client_central"]
    found = composed(words if first else words[::-1])
    for name in key.split("."):
        found = found[name]
    assert found == value


def test_the_first_line_says_the_noise_of_each_phase(make_config, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("fedbatch"), "propagate", True)
    options = (
        "controller=noise_scale_switch",
        "controller.large.cohort_size=10",
        "controller.large.client_batch_size=8",
    )
    config = make_config("privacy=client_central", *options, "rounds=3", "privacy.target_epsilon=4")
    privacy = task.load(config.to_json()).privacy
    with caplog.at_level(logging.INFO, "fedbatch"):
        _, summary, _ = run(config)
    said = next(line for line in caplog.messages if line.startswith("privacy: "))
    noise = privacy.calibration.first_noise
    assert said.startswith("privacy: epsilon 4 at delta 1e-05, client level, in 3 rounds (enough for all 3 rounds")
    assert f"small: noise multiplier {noise:.3g}, q 0.2, expected batch 4 clients" in said
    assert f"large: noise multiplier {noise:.3g}, q 0.5, expected batch 10 clients" in said
    words = headline(summary["privacy"])
    spent = summary["privacy"]["epsilon_rdp"]
    assert 0 < spent < 4 and f"(spent {spent:.3g} of 4; {4 - spent:.3g} was not spent)" in words


def test_a_run_that_ends_early_says_what_it_did_not_spend(make_config):
    options = ("privacy.target_epsilon=null", "privacy.noise_multiplier=2", "rounds=4")
    _, summary, _ = run(make_config("privacy=client_central", "controller=fixed", *options))
    assert "was not spent" not in headline(summary["privacy"])
    early = summary["privacy"] | {"epsilon": summary["privacy"]["epsilon"] / 2}
    half = early["epsilon"]
    assert f"(spent {half:.3g} of {2 * half:.3g}; {half:.3g} was not spent)" in headline(early)
    without = early | {"epsilon": math.inf, "planned_epsilon": math.inf}
    assert "was not spent" not in headline(without)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mechanism", "least"), [("example_local", 0.74), ("example_distributed", 0.74), ("client_central", 0.76)]
)
def test_one_word_gives_a_useful_model(mechanism, least, tmp_path):
    from fedbatch import run as run_it

    scores = []
    for seed in range(2):
        folder = tmp_path / str(seed)
        run_it(f"privacy={mechanism}", seed=seed, run_dir=str(folder), report="none", evaluate_every_rounds=0)
        summary = from_json((folder / "summary.json").read_bytes())
        assert summary["epsilon"] <= 8
        scores.append(summary["test_accuracy"])
    assert np.mean(scores) > least


@pytest.mark.parametrize("executor", ["auto", "ghost"])
def test_a_model_with_dropout_runs_privately(make_config, executor):
    from torch import nn

    from fedbatch import run as run_it

    def model(input_shape, num_classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, num_classes))

    folder = make_config("privacy=example_local").run_dir
    options = [option for option in TINY if not option.startswith("model")]
    found = run_it("privacy=example_local", *options, model=model, executor=executor, run_dir=folder, report="none")
    assert found.summary["rounds"] == 4 and found.summary["epsilon"] <= 8
