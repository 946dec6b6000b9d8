"""Bounds from one run, held against mechanisms whose privacy is known: never too high, and not far too low."""

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from fedbatch.privacy import accounting, one_run
from fedbatch.privacy.one_run import Guesses, epsilon_without_shape, guess, log_likelihood_ratio, refutes, trade_off

M, TRIALS = 400, 300
EPSILONS = np.concatenate([[0.0], np.geomspace(1e-3, 50, 400)])


def gaussian_deltas(mu):
    return norm.cdf(mu / 2 - EPSILONS / mu) - np.exp(EPSILONS) * norm.cdf(-mu / 2 - EPSILONS / mu)


@pytest.mark.parametrize("mu", [0.3, 1.0, 3.0])
def test_trade_off_is_the_gaussians_from_below(mu):
    of_mechanism = trade_off(EPSILONS, np.maximum(gaussian_deltas(mu), 0.0))
    for alarms in (1e-4, 0.01, 0.1, 0.5, 0.9):
        exact = norm.cdf(norm.isf(alarms) - mu)
        assert exact - 2e-3 < of_mechanism(alarms) <= exact + 1e-12


def test_deltas_are_the_accountants():
    exact = gaussian_deltas(5**0.5 / 2.0)
    found = accounting.deltas([(1.0, 2.0, 3), (1.0, 2.0, 2)], EPSILONS)
    assert (found >= exact - 1e-9).all() and np.abs(found - exact).max() < 1e-3
    assert accounting.epsilon([(0.1, 1.0, 20)], 1e-4) == pytest.approx(
        np.interp(-1e-4, -accounting.deltas([(0.1, 1.0, 20)], EPSILONS), EPSILONS), rel=0.03
    )


def gaussian_guesses(mu, generator):
    there = generator.random(M) < 0.5
    values = there + generator.normal(size=M) / mu
    return guess(log_likelihood_ratio(values, 1.0, 1 / mu, 1), there)


@pytest.mark.parametrize("mu", [0.5, 2.0])
def test_a_true_claim_is_hardly_ever_refuted_and_a_false_one_mostly(mu):
    generator = np.random.default_rng(0)
    runs = [gaussian_guesses(mu, generator) for _ in range(TRIALS)]
    truth, third = (trade_off(EPSILONS, np.maximum(gaussian_deltas(m), 0.0)) for m in (mu, mu / 3))
    refused = sum(refutes(each, truth, 0.05) for each in runs)
    assert refused <= binom.ppf(0.999, TRIALS, 0.05)
    assert sum(refutes(each, third, 0.05) for each in runs) > 0.4 * TRIALS


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_randomised_response_is_the_worst_case_that_is_still_allowed(epsilon):
    """Each guess is right with probability e^epsilon / (1 + e^epsilon), on its own: the tightest there is."""
    chance, generator = 1 / (1 + math.exp(-epsilon)), np.random.default_rng(1)
    claim = trade_off(np.array([epsilon]), np.zeros(1))
    rights = generator.binomial(M, chance, size=TRIALS)
    refused = sum(refutes(Guesses(M, (M,), (int(right),)), claim, 0.05) for right in rights)
    assert refused <= binom.ppf(0.999, TRIALS, 0.05)
    bounds = [epsilon_without_shape(Guesses(M, (M,), (int(right),)), 0.0, 0.05) for right in rights]
    assert np.mean(np.array(bounds) > epsilon) <= binom.ppf(0.999, TRIALS, 0.05) / TRIALS
    assert np.median(bounds) > 0.6 * epsilon, "and the bound is near"


def test_without_shape_agrees_with_the_binomial_tail_where_delta_is_nothing():
    bound = epsilon_without_shape(Guesses(100, (100,), (80,)), 0.0, 0.05)
    assert binom.sf(79, 100, 1 / (1 + math.exp(-bound))) == pytest.approx(0.05, rel=0.02)
    assert epsilon_without_shape(Guesses(100, (100,), (80,)), 1e-4, 0.05) < bound
    assert epsilon_without_shape(Guesses(100, (100,), (40,)), 0.0, 0.05) < 1e-2


def test_the_surest_come_first():
    there = np.array([True, False] * 10)
    scores = np.where(there, 1.0, -1.0) * np.arange(20, 0, -1)
    scores[-2:] *= -1  # the two least sure are wrong
    found = guess(scores, there)
    assert found == Guesses(20, (10, 5, 2), (10, 5, 2)) and one_run.SHARES == (0.5, 0.25, 0.1)
    assert guess(-scores, there) == Guesses(20, (10, 5, 2), (0, 0, 0))


@pytest.mark.parametrize(("q", "steps"), [(1.0, 1), (0.3, 1), (0.3, 4)])
def test_likelihood_ratio_is_that_of_the_two_densities(q, steps):
    sigma, values = 0.7, np.linspace(-3, 5, 9)
    wide = sigma * steps**0.5
    mixture = sum(binom.pmf(k, steps, q) * norm.pdf(values, k, wide) for k in range(steps + 1))
    expected = np.log(mixture / norm.pdf(values, 0, wide))
    np.testing.assert_allclose(log_likelihood_ratio(values, q, sigma, steps), expected, rtol=1e-9, atol=1e-12)


def least_refuted(of_mechanism, canaries, made):
    return next(right for right in range(made + 1) if refutes(Guesses(canaries, (made,), (right,)), of_mechanism, 0.05))


@pytest.mark.parametrize(("canaries", "made", "mu"), [(200, 200, 0.5), (200, 100, 1.0), (400, 40, 0.5)])
def test_the_first_number_that_is_too_many_is_the_papers(canaries, made, mu):
    """The algorithm of Mahloujifar et al. (2024) with a cap, written down in probabilities of whole numbers."""

    def is_too_many(right):
        r, h = [0.0] * (right + 1), [0.0] * (right + 1)
        h[right], r[right] = 0.05 * (made - right) / canaries, 0.05 * right / canaries
        for i in reversed(range(right)):
            h[i] = max(h[i + 1], norm.cdf(norm.ppf(min(1.0, r[i + 1])) - mu))
            r[i] = r[i + 1] + i / (made - i) * (h[i] - h[i + 1])
        return r[0] + h[0] > made / canaries

    expected = next(right for right in range(made + 1) if is_too_many(right))
    exact = trade_off(EPSILONS, np.maximum(gaussian_deltas(mu), 0.0))
    assert abs(least_refuted(exact, canaries, made) - expected) <= 1 and made / 2 < expected < made
