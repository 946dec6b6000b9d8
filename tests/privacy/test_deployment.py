"""A few clients simulate a deployment of many: its epsilon, its noise on the mean, and whose they are said to be."""

import numpy as np
import pytest
import torch

from fedbatch.auditing.attack import audit
from fedbatch.core.errors import ConfigError
from fedbatch.privacy import epsilon, noise_multiplier
from fedbatch.privacy.release import release
from fedbatch.privacy.statement import headline, opening
from tests.conftest import run

POPULATION, COHORT = 100_000, 2_000
DEPLOYED = (f"privacy.deployment_population={POPULATION}", f"privacy.deployment_cohort={COHORT}")
TARGET = ("privacy.target_epsilon=2", "privacy.noise_multiplier=null", "controller=fixed", "rounds=5")


def test_noise_is_what_the_deployment_needs_and_as_small_a_part_of_the_mean(make_task):
    loaded = make_task(
        "client_central", *TARGET, *DEPLOYED, "privacy.clip_norm=0.5", "privacy.measure_noise_scale=false"
    )
    plan, (phase,) = loaded.privacy, loaded.controller.phases
    assert plan.delta == pytest.approx(0.1 / POPULATION)
    sigma = noise_multiplier(2.0, plan.delta, [(COHORT / POPULATION, 1.0, 5)])
    assert plan.noise_multiplier(phase) == pytest.approx(sigma, rel=1e-4)
    noise = plan.release_noise(phase, 0.5, 1.0, 7)
    assert noise.update / phase.cohort_size == pytest.approx(sigma * 0.5 / COHORT, rel=1e-4)
    zeros = torch.zeros(200_000, dtype=torch.float64), np.zeros(0)
    released = release(plan, phase, 0.5, zeros, np.arange(4), (0, "p", 0), True)
    assert float(released.mean.std()) == pytest.approx(sigma * 0.5 / COHORT, rel=0.01)


def test_clients_are_drawn_from_those_that_are_there(make_config):
    config = make_config("privacy=client_central", *TARGET, *DEPLOYED, "cohort_size=20")
    _, summary, state = run(config)
    assert {(r.sample_rate, r.clients) for r in state.ledger.releases} == {(COHORT / POPULATION, None)}
    (spent,) = summary["privacy"]["schedule"]
    assert spent["sample_rate"] == COHORT / POPULATION and spent["steps"] == 5
    expected = epsilon([(COHORT / POPULATION, spent["noise_multiplier"], 5)], 0.1 / POPULATION)
    assert summary["epsilon"] == pytest.approx(expected) and 1.99 < expected <= 2
    words = headline(summary["privacy"])
    assert "(of a simulated deployment, 2,000 of 100,000 clients a round; the 20 clients of this run are not" in words


def test_the_deployments_cohort_grows_with_the_phase(make_task):
    schedule = ("controller=schedule", "controller.phases.large.cohort_size=12", "controller.starts.large=2")
    plan = make_task("client_central", *TARGET[:2], *schedule, "rounds=5", *DEPLOYED).privacy
    rates = {q: steps for q, _, steps in plan.calibration.schedules[0]}
    assert rates == {0.02: 2, 0.06: 3}, "three times as many clients"


def test_the_count_within_the_clip_norm_is_the_deployments_too(make_task):
    loaded = make_task("client_central", *TARGET, *DEPLOYED, "privacy.clip_quantile=0.5")
    plan, (phase,) = loaded.privacy, loaded.controller.phases
    count = plan.extra_deviations(phase, plan.release_noise(phase, 1.0, 1.0, 7))[-1]
    assert count == pytest.approx(phase.cohort_size / 20), "a twentieth of the cohort, there and here"
    accounted = plan.noise_multiplier(phase)
    left = (accounted**-2 - (2 * COHORT / 20) ** -2) ** -0.5 * (1 + 1 / 100) ** 0.5
    assert plan.update_noise(phase) == pytest.approx(left)


def test_without_a_deployment_nothing_is_said(make_task):
    loaded = make_task("client_central", *TARGET)
    assert "deployment" not in opening(loaded.privacy, loaded.controller.phases, 5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (DEPLOYED[:1], "set deployment_population and deployment_cohort together"),
        ((DEPLOYED[0], "privacy.deployment_cohort=2"), r"from cohort_size \(4\) to deployment_population"),
        ((DEPLOYED[0], "privacy.deployment_cohort=200000"), r"from cohort_size \(4\) to deployment_population"),
        ((*DEPLOYED, "privacy.bands=2"), "not scaled to a deployment"),
        ((*DEPLOYED, "temperature=private", "client_holdout=0.2"), "not scaled to a deployment"),
    ],
)
def test_refusals(make_task, options, said):
    with pytest.raises(ConfigError, match=said):
        make_task("client_central", *TARGET, *options)


def test_an_audit_has_nobody_to_attack():
    with pytest.raises(ConfigError, match="simulates a larger deployment"):
        audit("dataset=digits", "privacy=client_central", *DEPLOYED, "population=20", "rounds=2")
