"""What an audit keeps of a run: sample rates, noise, steps, client work; and the noise that the guarantee counts on."""

import numpy as np
import pytest
import torch

from fedbatch.auditing import canaries
from fedbatch.auditing.planted import planted
from fedbatch.core.errors import ConfigError
from fedbatch.setup import task
from tests.conftest import PRIVATE


@pytest.fixture
def plant(make_config, tmp_path):
    def plant(*options):
        config = make_config("privacy.target_epsilon=null", "privacy.noise_multiplier=1.5", *options, base=())
        plan = task.load(config.to_json()).privacy
        made = planted(config, plan, str(tmp_path / "audit"), 400)
        return plan, task.load(made.to_json())

    return plant


TASK = ("dataset=digits", "model.width=4", "rounds=7")


@pytest.mark.parametrize(
    "options",
    [
        ("privacy=client_central", "population=20", "cohort_size=5"),
        ("privacy=example_local", "population=20", "cohort_size=5", "client_batch_size=8"),
        ("privacy=example_local", "population=20", "cohort_size=20", "client_batch_size=null"),
        (
            "privacy=example_distributed",
            "population=20",
            "cohort_size=10",
            "privacy.min_clients=5",
            "privacy.colluders=1",
        ),
        (
            *("privacy=example_distributed", "population=20", "cohort_size=10", "privacy.min_clients=5", "nodes=3"),
            *("privacy.secure_aggregation=masked", "privacy.quantum=0.001"),
        ),
    ],
    ids=str,
)
def test_rates_noise_and_participation_are_the_runs(plant, options):
    plan, audited = plant(*TASK, *options)
    (before,), (after,) = plan.calibration.schedules[:1], audited.privacy.calibration.schedules[:1]
    (q, sigma, steps), (q_after, sigma_after, steps_after) = before[0], after[0]
    assert sigma_after == sigma == 1.5 and q_after == pytest.approx(q, rel=0.05)
    assert abs(steps_after - steps) <= 2, "who is in how many cohorts is drawn"
    assert audited.privacy.delta == plan.delta and 200 <= len(audited.train_y) <= 800
    phase = audited.controller.phases[0]
    shares = audited.privacy.mechanism.noise_shares(phase.cohort_size)
    assert shares == pytest.approx(1.0), "as much noise as is accounted, and no more"


def test_all_phases_keep_their_rates(plant):
    options = ("controller=schedule", "controller.phases.large.cohort_size=10", "controller.starts.large=3")
    _, audited = plant(*TASK, "privacy=client_central", "population=20", "cohort_size=2", *options)
    assert [audited.privacy.terms.sample_rate(phase) for phase in audited.controller.phases] == [0.1, 0.5]


def test_client_work_stays_and_nothing_else_is_released(plant):
    work = ("client_work=local_sgd", "client_work.epochs=null", "client_work.steps=3", "client_work.lr=0.5")
    _, audited = plant(*TASK, "privacy=client_central", "population=20", "cohort_size=5", *work, "faults=some")
    assert audited.default_work.steps == 3 and audited.config.faults == {} and audited.config.evaluate_every_rounds == 0


def test_canaries_move_one_coordinate_each():
    data = canaries.dataset(30, 5.0, seed=1)
    there = canaries.present(30, seed=1)
    assert 5 < there.sum() < 25 and (data.train_x == 5.0 * np.diag(there)).all()
    model = canaries.model((30,), 2)
    loss = canaries.ConstantGradient()(model(torch.from_numpy(data.train_x)), torch.from_numpy(data.train_y), "none")
    loss.sum().backward()
    gradient = model.weight.grad.flatten()
    own, empty = canaries.read(gradient)
    np.testing.assert_allclose(own, 5.0 * there)
    assert not empty.any()


def test_without_noise_there_is_no_claim(plant):
    with pytest.raises(ConfigError, match="nothing is claimed"):
        plant(*TASK, "privacy=client_central", "population=20", "cohort_size=5", "privacy.noise_multiplier=0")


def test_few_canaries_where_delta_is_large(plant):
    _, audited = plant(
        *TASK, *PRIVATE[:1], "privacy=client_central", "population=20", "cohort_size=5", "privacy.delta=0.01"
    )
    assert len(audited.train_y) == 99
