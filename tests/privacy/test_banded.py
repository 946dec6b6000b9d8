"""Strategies against dense matrices, published errors, and every participation pattern of small cases."""

from itertools import product

import numpy as np
import pytest

from fedbatch.privacy import epsilon
from fedbatch.privacy.banded import INDEPENDENT, coefficients, error, inverse, square_root, variance

CASES = [(12, 2), (12, 5), (40, 8), (40, 40)]


def dense(strategy, rounds):
    """The Toeplitz matrix (T, T) of a strategy."""
    matrix = np.zeros((rounds, rounds))
    for j, c in enumerate(strategy[:rounds]):
        matrix += c * np.eye(rounds, k=-j)
    return matrix


@pytest.mark.parametrize(("rounds", "bands"), CASES)
def test_inverse_variance_and_error_are_those_of_the_matrix(rounds, bands):
    strategy = coefficients(bands, rounds)
    inverted = np.linalg.inv(dense(strategy, rounds))
    assert inverse(strategy, rounds) == pytest.approx(inverted[:, 0])
    assert [variance(strategy, t) for t in range(rounds)] == pytest.approx(np.diag(inverted @ inverted.T))
    sums = np.tril(np.ones((rounds, rounds))) @ inverted
    assert error(strategy, rounds) == pytest.approx(np.linalg.norm(sums) / rounds**0.5)


@pytest.mark.parametrize(("rounds", "bands"), [*CASES, (1000, 32)])
def test_the_strategy_has_length_one_and_no_neighbour_is_better(rounds, bands):
    strategy = np.array(coefficients(bands, rounds))
    assert strategy @ strategy == pytest.approx(1) and (strategy >= 0).all() and len(strategy) == bands
    best = error(tuple(strategy), rounds)
    assert best <= error(tuple(square_root(bands)), rounds) and best < error(INDEPENDENT, rounds)
    draw = np.random.default_rng(0)
    for _ in range(30):
        other = np.abs(strategy + 1e-3 * draw.normal(size=bands))
        assert error(tuple(other / np.linalg.norm(other)), rounds) >= best * (1 - 1e-9)


@pytest.mark.parametrize("rounds", [16, 64, 256])
def test_with_as_many_bands_as_rounds_the_error_is_near_the_least_that_there_is(rounds):
    # Known: no factorisation is below |A|_* / T (nuclear norm); Fichtenberger et al. (2023) and Henzinger et al. (2023)
    # give that of the square root, whose coefficients are binom(2k, k) / 4^k.
    prefix = np.tril(np.ones((rounds, rounds)))
    least = np.linalg.svd(prefix, compute_uv=False).sum() / rounds
    root = np.cumprod([1.0, *((2 * k - 1) / (2 * k) for k in range(1, rounds))])
    published = np.sqrt((root**2).sum() * (np.arange(rounds, 0, -1) @ root**2) / rounds)
    assert error(tuple(square_root(rounds)), rounds) == pytest.approx(published)
    assert dense(square_root(rounds) / square_root(rounds)[0], rounds) @ dense(root, rounds) == pytest.approx(prefix)
    assert least <= error(coefficients(rounds, rounds), rounds) <= published
    assert error(coefficients(rounds, rounds), rounds) <= 1.08 * least


@pytest.mark.parametrize(("rounds", "bands"), [(6, 2), (7, 3), (8, 4), (5, 5)])
def test_a_participation_adds_length_one_whatever_the_pattern_and_the_signs(rounds, bands):
    matrix = dense(coefficients(bands, rounds), rounds)
    for group in range(bands):
        own = list(range(group, rounds, bands))
        for signs in product((-1.0, 0.0, 1.0), repeat=len(own)):
            added = np.zeros(rounds)
            added[own] = signs
            squared = float(((matrix @ added) ** 2).sum())
            assert squared <= np.abs(signs).sum() + 1e-12
            whole = [s for s in own if s + bands <= rounds]
            assert squared >= np.abs(added[whole]).sum() - 1e-12, "no more noise than is needed"
    neighbours = np.zeros(rounds)
    neighbours[:2] = 1.0
    assert ((matrix @ neighbours) ** 2).sum() > 2.1, "units of one group must not take part in rounds side by side"


@pytest.mark.parametrize(("q", "sigma"), [(0.01, 0.7), (0.8, 0.7), (0.2, 2.0)])
def test_rows_of_a_round_done_again_are_paid_for_by_one_event_without_sampling(q, sigma):
    # One coin for both attempts: a shift of length up to sqrt(1 + 1) with probability q.
    both = epsilon([(q, sigma / 2**0.5, 1)], 1e-5)
    assert both <= epsilon([(q, sigma, 1), (1.0, sigma, 1)], 1e-5) + 1e-3


def test_one_more_event_with_sampling_would_not_pay_for_them():
    assert epsilon([(0.2, 0.7 / 2**0.5, 1)], 1e-5) > epsilon([(0.2, 0.7, 2)], 1e-5)
