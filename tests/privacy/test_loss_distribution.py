"""One step against the library's own distribution, whole schedules against closed forms and bounds from both sides."""

import math
import time
from collections import Counter
from functools import reduce

import numpy as np
import pytest
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism
from scipy.optimize import brentq
from scipy.stats import norm

from fedbatch.privacy import epsilon, noise_multiplier
from fedbatch.privacy.accounting import tightest
from fedbatch.privacy.loss_distribution import of_step, spacing_of


def gaussian(sensitivity, delta):
    """Epsilon of one Gaussian release of unit noise (Balle and Wang 2018)."""

    def excess(eps):
        log_lower = eps + norm.logcdf(-sensitivity / 2 - eps / sensitivity)
        return norm.cdf(sensitivity / 2 - eps / sensitivity) - math.exp(log_lower) - delta

    return brentq(excess, 0, sensitivity**2 + 20 * sensitivity, xtol=1e-12)


@pytest.mark.parametrize(("q", "sigma"), [(0.01, 1.0), (0.3, 0.4), (0.999, 2.0), (1.0, 3.0), (1e-5, 0.5), (0.5, 60.0)])
def test_a_step_is_the_librarys(q, sigma):
    own = of_step(q, sigma, 1e-3)
    librarys = from_gaussian_mechanism(sigma, sampling_prob=q, value_discretization_interval=1e-3)
    for epsilons in (np.linspace(-1, 1, 11), np.linspace(0, 30, 11)):
        np.testing.assert_allclose(
            own.get_delta_for_epsilon(epsilons), librarys.get_delta_for_epsilon(epsilons), rtol=1e-9, atol=1e-13
        )


@pytest.mark.parametrize(
    ("sigma", "steps", "slack"),
    [(0.1, 1, 1e-6), (0.05, 4, 2e-3), (0.01, 1, 1e-3), (0.001, 1, 1e-4), (2000.0, 10**6, 2e-3)],
)
def test_little_noise_and_many_steps_are_quick_and_near_the_closed_form(sigma, steps, slack):
    began = time.process_time()
    bound = epsilon([(1.0, sigma, steps)], 1e-5)
    assert time.process_time() - began < 5
    exact = gaussian(math.sqrt(steps) / sigma, 1e-5)
    assert exact <= bound <= (1 + slack) * exact


@pytest.mark.parametrize("steps", [7])
def test_a_thousand_distinct_phases_lie_between_bounds_from_both_sides(steps):
    # All of them cost less than the worst of them does a thousand times, and more than the best does.
    phases = [(0.02 + i * 1e-8, 1.0 + i * 1e-7, steps) for i in range(1000)]
    began = time.process_time()
    bound = epsilon(phases, 1e-5)
    assert time.process_time() - began < 10
    below = from_gaussian_mechanism(1.0001, sampling_prob=0.02, pessimistic_estimate=False, use_connect_dots=False)
    above = from_gaussian_mechanism(1.0, sampling_prob=0.02001)
    low = below.self_compose(1000 * steps).get_epsilon_for_delta(1e-5)
    high = above.self_compose(1000 * steps).get_epsilon_for_delta(1e-5)
    assert low <= bound <= 1.001 * high
    assert high / low < 1.07, "or the bounds say nothing"


@pytest.mark.parametrize("seed", range(3))
def test_random_schedules_lie_between_rounding_down_and_the_librarys_rounding_up(seed):
    draw = np.random.default_rng(seed)
    phases = [(10 ** draw.uniform(-3, -0.3), 10 ** draw.uniform(-0.2, 1), int(10 ** draw.uniform(0, 3))) for _ in "abc"]

    def librarys(**how):
        made = (from_gaussian_mechanism(s, sampling_prob=q, **how).self_compose(n) for q, s, n in phases)
        return reduce(lambda total, other: total.compose(other), made).get_epsilon_for_delta(1e-6)

    low = librarys(pessimistic_estimate=False, use_connect_dots=False, value_discretization_interval=3e-4)
    assert low <= epsilon(phases, 1e-6) <= 1.001 * librarys()


def test_all_different_counts_are_composed_as_one_after_the_other():
    phases = [(0.05, 2.0, n) for n in range(1, 21)]
    whole = epsilon([(0.05, 2.0, 210)], 1e-5)
    assert epsilon(phases, 1e-5) == pytest.approx(whole, rel=1e-9), "the same phase is one phase"
    apart = [(0.05, 2.0 + n * 1e-9, n) for n in range(1, 21)]
    assert epsilon(apart, 1e-5) == pytest.approx(whole, rel=1e-4)
    assert epsilon(apart[::-1], 1e-5) == epsilon(apart, 1e-5)


def test_points_are_finer_where_steps_say_little_and_coarser_where_they_say_much():
    assert spacing_of(Counter({(0.01, 1.0): 1000})) == 1e-4
    assert spacing_of(Counter({(1e-3, 20.0): 10**6})) < 1e-5
    assert spacing_of(Counter({(0.5, 0.05): 100})) > 1e-3
    # Steps of little are tight then: by the central limit they are one Gaussian release.
    sensitivity = 1e-3 * math.sqrt(10**6 * math.expm1(20.0**-2))
    assert epsilon([(1e-3, 20.0, 10**6)], 1e-5) == pytest.approx(gaussian(sensitivity, 1e-5), rel=3e-3)


def test_the_smaller_bound_is_reported_and_named():
    usual, tiny_delta = [(0.01, 1.0, 100)], 1e-16
    for delta, name in ((1e-5, "pld"), (tiny_delta, "rdp")):
        both = {accountant: epsilon(usual, delta, accountant) for accountant in ("pld", "rdp")}
        assert epsilon(usual, delta) == min(both.values()) == both[name]
        assert tightest([usual, [(0.01, 1.0, 50)]], delta, "auto") == name
    assert tightest([usual], 1e-5, "rdp") == "rdp"
    # Beyond what points can hold there is still a bound.
    assert math.isinf(epsilon([(1.0, 1e-5, 1)], 1e-5, "pld")) and epsilon([(1.0, 1e-5, 1)], 1e-5) < 6e9


@pytest.mark.parametrize(
    ("target", "phases"),
    [
        (0.5, [(0.01 + i * 1e-4, 1.0 + i * 1e-3, 5) for i in range(17)]),
        (300.0, [(0.5, 1.0, 5)]),
        (0.01, [(1e-3, 1.0, 10**5)]),
    ],
)
def test_calibrated_noise_never_costs_more_than_the_target(target, phases):
    factor = noise_multiplier(target, 1e-5, phases)
    assert 0.998 * target < epsilon([(q, factor * sigma, steps) for q, sigma, steps in phases], 1e-5) <= target
