"""Auditing in one run: canaries whose presence is guessed from a release give a lower bound on its epsilon.

Every canary is an example with one input of its own, so that it moves coordinates that no other touches: its presence
is an independent coin, and so is the guess. Clopper-Pearson bounds of the two error rates then bound the trade-off
function (f-DP) from one release; read as that of a Gaussian mechanism, they bound mu and with it epsilon.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import beta, norm
from torch import nn

from fedbatch.data.partition import IndexPartition
from fedbatch.models.flat import FlatModel
from fedbatch.privacy import epsilon
from fedbatch.privacy.terms import SamplingPlan
from tests.privacy.releases import sum_of, with_noise

CANARIES, DELTA = 1000, 1e-5


def canary_task(run, present):
    """The task with one client that holds the present canaries, sampled with q = 1."""
    count = int(present.sum())
    x = torch.eye(CANARIES)[torch.from_numpy(present)]
    partition = IndexPartition.from_assignment(np.zeros(count, np.int64))
    terms = SamplingPlan(run.privacy.mechanism, np.array([count]), run.controller.phases[0])
    model = FlatModel(nn.Linear(CANARIES, 2, bias=False))
    model.params.zero_()
    privacy = replace(run.privacy, terms=terms)
    labels = torch.zeros(count, dtype=torch.int64)
    return replace(run, train_x=x, train_y=labels, partition=partition, node_model=model, privacy=privacy)


def scores(run, present, clip_norm):
    """What an attacker reads for each canary: the released sum along its own gradient."""
    released = sum_of(canary_task(run, present), [0], params=torch.zeros(2 * CANARIES), clip_norm=clip_norm)
    weight = released.view(2, CANARIES)
    return ((weight[1] - weight[0]) / (2**0.5 * clip_norm)).numpy()


def lower_bound(values, present, threshold):
    """Of epsilon at DELTA, with 95 % confidence."""
    hits, alarms = int((values[present] > threshold).sum()), int((values[~present] > threshold).sum())
    positives, negatives = int(present.sum()), int((~present).sum())
    power = beta.ppf(0.025, hits, positives - hits + 1) if hits else 0.0
    false = beta.ppf(0.975, alarms + 1, negatives - alarms)
    mu = norm.ppf(power) - norm.ppf(false)
    return gaussian_epsilon(mu) if mu > 0 else 0.0


def gaussian_epsilon(mu):
    def excess(e):
        return norm.cdf(mu / 2 - e / mu) - math.exp(e) * norm.cdf(-mu / 2 - e / mu) - DELTA

    return brentq(excess, 0, 500)


@pytest.fixture
def audited(make_task):
    run = make_task("example_local", "model=logistic", "privacy.measure_noise_scale=false", "client_batch_size=null")
    present = np.random.default_rng(0).random(CANARIES) < 0.5
    # A gradient is (p - y) x with p = 1/2, of length 0.7: a clip norm below makes it exactly C.
    return lambda sigma: scores(with_noise(run, sigma), present, clip_norm=0.1), present


def test_the_bound_stays_below_the_claim(audited):
    score, present = audited
    values, claimed = score(1.0), epsilon([(1.0, 1.0, 1)], DELTA)
    assert claimed == pytest.approx(4.38, abs=0.01)
    found = lower_bound(values, present, threshold=0.5)
    assert 0.5 < found < claimed


STEPS, RATE = 2, 1e-3
LOCAL = ("client_work=local_sgd", "client_work.epochs=null", f"client_work.steps={STEPS}", f"client_work.lr={RATE}")


@pytest.mark.parametrize("weaker", [1.0, 10.0])
def test_two_local_steps_cost_two_releases_and_weaker_noise_is_caught(make_task, weaker):
    options = ("model=logistic", "privacy.measure_noise_scale=false", "client_batch_size=null")
    run = make_task("example_local", *options, *LOCAL)
    assert run.privacy.steps(run.controller.phases[0]) == STEPS
    present = np.random.default_rng(1).random(CANARIES) < 0.5
    # The reply is the learning rate times what both steps released; the model hardly moves between them.
    values = scores(with_noise(run, 1.0 / weaker), present, clip_norm=0.1) / RATE
    found = lower_bound(values, present, threshold=STEPS / 2)
    claimed = gaussian_epsilon(STEPS**0.5)  # two Gaussians of noise 1 are one with mu = sqrt 2
    assert claimed == pytest.approx(epsilon([(1.0, 1.0, STEPS)], DELTA), rel=1e-3)
    assert 0.5 < found < claimed if weaker == 1 else found > claimed


@pytest.mark.parametrize("factor", [10.0, 10**0.5])
def test_too_little_noise_is_caught(audited, factor):
    score, present = audited
    found = lower_bound(score(1.0 / factor), present, threshold=0.5)
    assert found > epsilon([(1.0, 1.0, 1)], DELTA)
