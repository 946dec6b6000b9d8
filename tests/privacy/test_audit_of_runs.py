"""Audits of whole runs: what an attacker who sees every release guesses bounds epsilon from below.

The bound is read off as that of a Gaussian mechanism where everyone takes part, which is then exact, and from the
definition of differential privacy where units are sampled. It lies below the claim of the run's own statement, and
above it where the noise is ten times too weak, so the audit has power.
"""

import math

import numpy as np
import pytest
import torch
from scipy.stats import beta

from fedbatch.metrics.temperature import HALVINGS
from fedbatch.privacy import epsilon
from fedbatch.privacy.banded import coefficients
from fedbatch.privacy.groups import groups
from fedbatch.privacy.randomness import Randomness
from fedbatch.server import collect_private
from fedbatch.server.held_out import noised_slope, slope_plans
from tests.conftest import run
from tests.privacy.canaries import CANARIES, PRESENT, scores
from tests.privacy.test_audit import DELTA, gaussian_epsilon, lower_bound
from tests.privacy.test_banded import dense
from tests.privacy.test_private_temperature import start

pytestmark = pytest.mark.slow
ROUNDS, SIGMA, CLIP, BANDS = 3, 2.0, 0.1, 2
TASK = (
    "dataset=digits",
    "model=logistic",
    "dataset._target_=tests.privacy.canaries.dataset",
    "model._target_=tests.privacy.canaries.model",
    "server_optimizer.lr=1e-9",
    "privacy.target_epsilon=null",
    f"privacy.noise_multiplier={SIGMA}",
    f"privacy.clip_norm={CLIP}",
    "controller=fixed",
    "executor=fused",
    f"rounds={ROUNDS}",
    "evaluate_every_rounds=0",
)
CLIENTS = (f"population={CANARIES}", "client_batch_size=1")
ONE = ("population=1", "cohort_size=1", "client_batch_size=null")
QUANTILE = ("privacy.clip_quantile=0.7", "privacy.count_noise=20")
LOCAL = (
    "client_work=local_sgd",
    "client_work.epochs=null",
    "client_work.steps=2",
    "client_work.lr=1.0",
    "executor=vmap",
)
EVERYONE = f"cohort_size={CANARIES}"
KINDS = {
    "client_central": ("client_central", *CLIENTS, EVERYONE),
    "client_central-adaptive_clip": ("client_central", *CLIENTS, EVERYONE, *QUANTILE),
    "client_central-local_sgd": ("client_central", *CLIENTS, EVERYONE, *LOCAL),
    "example_local": ("example_local", *ONE),
    "example_central": ("example_central", *ONE),
    "example_distributed": ("example_distributed", *ONE, "privacy.min_clients=1"),
    "example_local-adaptive_clip": ("example_local", *ONE, *QUANTILE),
    "example_distributed-adaptive_clip": ("example_distributed", *ONE, "privacy.min_clients=1", *QUANTILE),
}


@pytest.fixture
def weaken(monkeypatch):
    """Make all noise weaker by a factor, behind the accountant's back."""
    original = Randomness.normal

    def weaken(factor):
        monkeypatch.setattr(Randomness, "normal", lambda self, n, *what, **on: original(self, n, *what, **on) / factor)

    return weaken


@pytest.fixture
def attacked(make_config, monkeypatch):
    """What an attacker reads in a run for each canary, (rounds, n) in clip norms, and what the run claims."""

    def attacked(mechanism, *options, rounds=ROUNDS):
        read = []
        original = collect_private.release

        def spy(privacy, phase, clip_norm, *rest):
            released = original(privacy, phase, clip_norm, *rest)
            read.append(scores(released.mean.double() * released.batch) / clip_norm)
            return released

        monkeypatch.setattr(collect_private, "release", spy)
        _, summary, _ = run(make_config(f"privacy={mechanism}", *TASK, *options, base=()))
        assert len(read) == rounds and summary["privacy"]["delta"] == DELTA
        return np.stack(read), summary["epsilon"]

    return attacked


@pytest.mark.parametrize("weaker", [1.0, 10.0])
@pytest.mark.parametrize("kind", KINDS)
def test_every_round_is_paid_for(attacked, weaken, kind, weaker):
    weaken(weaker)
    read, claimed = attacked(*KINDS[kind])
    assert claimed == pytest.approx(gaussian_epsilon(ROUNDS**0.5 / SIGMA), rel=1e-3)
    found = lower_bound(read.sum(axis=0), PRESENT, threshold=ROUNDS / 2)
    assert 0.5 < found < claimed if weaker == 1 else found > claimed


@pytest.mark.parametrize("weaker", [1.0, 10.0])
@pytest.mark.parametrize("adaptive", [False, True])
def test_sampling_amplifies_as_claimed(attacked, weaken, adaptive, weaker):
    weaken(weaker)
    options = QUANTILE if adaptive else ()
    read, claimed = attacked("client_central", *CLIENTS, f"cohort_size={CANARIES // 2}", *options)
    assert claimed == pytest.approx(epsilon([(0.5, SIGMA, ROUNDS)], DELTA))
    best = read.max(axis=0)  # who took part once was there
    found = by_definition(best, threshold=0.7 if weaker == 10 else np.quantile(best, 0.9))
    assert 0 <= found < claimed if weaker == 1 else found > claimed


@pytest.mark.parametrize("weaker", [1.0, 10.0])
def test_correlated_noise_hides_a_unit_in_all_rounds_that_it_reaches_into(attacked, weaken, weaker):
    """The best linear attack: the strategy makes rows of white noise of the releases, and each canary knows its own."""
    weaken(weaker)
    rounds, half = 4, f"cohort_size={CANARIES // BANDS}"  # every unit takes part whenever its group does
    read, claimed = attacked("client_central", *CLIENTS, half, f"privacy.bands={BANDS}", "rounds=4", rounds=rounds)
    strategy = dense(coefficients(BANDS, rounds), rounds)
    taking_part = groups(CANARIES, BANDS, seed=0)[:, None] == np.arange(rounds) % BANDS
    wanted = taking_part @ strategy.T  # (n, T), what a canary that is there adds to the rows
    lengths = (wanted**2).sum(axis=1) ** 0.5
    found = (wanted.T * (strategy @ read)).sum(axis=0) / lengths
    assert claimed == pytest.approx(gaussian_epsilon((rounds / BANDS) ** 0.5 / SIGMA), rel=1e-3)
    assert lengths.max() == pytest.approx((rounds / BANDS) ** 0.5)
    bound = lower_bound(found, PRESENT, threshold=float(lengths.mean()) / 2)
    assert 0.3 < bound < claimed if weaker == 1 else bound > claimed


def by_definition(values, threshold):
    """Lower bound of epsilon at DELTA: P(guess | there) <= e^epsilon P(guess | not there) + DELTA."""
    hits, alarms = int((values[PRESENT] > threshold).sum()), int((values[~PRESENT] > threshold).sum())
    power = beta.ppf(0.025, hits, int(PRESENT.sum()) - hits + 1)
    false = beta.ppf(0.975, alarms + 1, int((~PRESENT).sum()) - alarms)
    return max(0.0, math.log((power - DELTA) / false))


TRIALS, SLOPE_CLIP = 1000, 0.5
HELD = ("client_holdout=0.5", "temperature=private", f"temperature.clip_norm={SLOPE_CLIP}", "model=logistic")
UNITS = {
    "client_central": ("client_central",),
    "example_local": ("example_local",),
    "example_distributed": ("example_distributed", "privacy.min_clients=2"),
}


@pytest.fixture
def slopes(make_task):
    """Sums of the seven slopes in clip norms, where one unit's slopes are far too long, and where it is zeroed out."""

    def slopes(kind, present):
        loaded = make_task(*UNITS[kind], "population=2", "cohort_size=2", "rounds=1", *HELD)
        server, state = start(loaded)
        state.params.zero_()
        state.params[:64] = 1.0  # weights of class 0, which is sure wherever pixels are bright
        loaded.train_x.zero_()
        loaded.train_y.fill_(1)
        unit, sums = torch.from_numpy(loaded.held_out(0)[:1]), []
        for trial, there in enumerate(present):
            loaded.train_x[unit] = 16.0 * there  # too long even in the mean over what the client holds out
            asked = [slope_plans(server, state, 2.0**k, SLOPE_CLIP, nonce=f"{trial:032x}") for k in range(HALVINGS)]
            sums.append(sum(noised_slope(server, loaded.privacy, plans) for plans in asked))
        return np.array(sums) / SLOPE_CLIP, loaded.privacy.relative_temperature_noise

    return slopes


@pytest.mark.parametrize("weaker", [1.0, 10.0])
@pytest.mark.parametrize("kind", UNITS)
def test_seven_slopes_are_paid_for(slopes, weaken, kind, weaker):
    weaken(weaker)
    present = np.random.default_rng(3).random(TRIALS) < 0.5
    values, noise_multiplier = slopes(kind, present)
    claimed = epsilon([(1.0, noise_multiplier, HALVINGS)], DELTA)
    assert noise_multiplier == 4 and claimed == pytest.approx(gaussian_epsilon(HALVINGS**0.5 / 4), rel=1e-3)
    found = lower_bound(values, present, threshold=HALVINGS / 2)
    assert 0 < found < claimed if weaker == 1 else found > claimed
