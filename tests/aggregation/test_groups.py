"""Group sums against what they estimate, in closed form: signs of normal numbers, matrices of known norms."""

import math

import numpy as np
import pytest
import torch
from scipy.special import erf

from fedbatch.aggregation.groups import group_sums
from fedbatch.batch.gain import RunningGain, fit, scales

D, GROUPS, ROUNDS = 600, 8, 60
RNG = np.random.default_rng(0)
GRADIENT = RNG.normal(size=D) * np.exp(RNG.normal(size=D))
DEVIATION = 20 * np.exp(0.5 * RNG.normal(size=D))
GRAD_SQ = float(GRADIENT @ GRADIENT)
NOISE_SCALE = float((DEVIATION**2).sum() / GRAD_SQ)


def whole(vectors):
    return [vectors.view(len(vectors), 20, 30)]


def rounds(size, seed=0, groups=GROUPS):
    rng = np.random.default_rng(seed)
    for _ in range(ROUNDS):
        yield torch.from_numpy(GRADIENT + rng.normal(size=(groups, D)) * DEVIATION / math.sqrt(size))


def sign_gain(batch):
    """(E<G, sign(g)>)^2 / d for g normal with mean G and deviation sigma / sqrt(B)."""
    return float((GRADIENT * erf(GRADIENT * np.sqrt(batch / 2) / DEVIATION)).sum()) ** 2 / D


@pytest.mark.parametrize(("step", "gain"), [(lambda g: g, None), (torch.sign, sign_gain)], ids=["sgd", "sign"])
def test_both_expectations_are_measured_without_bias(step, gain):
    grad_sq, size = float(GRADIENT @ GRADIENT), 16
    found = [group_sums(means, size, step, whole, ()) for means in rounds(size)]
    for level in range(3):
        batch = size * 2**level
        along = np.array([each.along[level] + each.slopes[level] * grad_sq for each in found])
        expected = grad_sq if gain is None else math.sqrt(gain(batch) * D)
        error = max(along.std() / math.sqrt(ROUNDS), 1e-9 * expected)
        assert abs(along.mean() - expected) < 3 * error
        squares = np.array([each.squares[level] for each in found])
        expected = D if gain else grad_sq * (1 + NOISE_SCALE / batch)
        assert abs(squares.mean() - expected) < max(3 * squares.std() / math.sqrt(ROUNDS), 1e-9 * expected)


def test_the_control_variate_takes_noise_away():
    grad_sq = float(GRADIENT @ GRADIENT)
    found = [group_sums(means, 4, torch.sign, whole, ()) for means in rounds(4)]
    with_it = np.std([each.along[0] + each.slopes[0] * grad_sq for each in found])
    without = []
    for means in rounds(4):
        others = (means.sum(dim=0) - means) / (len(means) - 1)
        without.append(float((others * means.sign()).sum(dim=1).mean()))
    assert with_it < 0.85 * np.std(without)  # how much depends on how unequal coordinates are


def test_doubling_buys_what_the_closed_form_says():
    running, size = RunningGain(), 32
    for means in rounds(size, groups=16):
        running = running.update(group_sums(means, size, torch.sign, whole, ()), 0.95, GRAD_SQ, 0.0)
    found, batch = fit(running), 16 * size
    assert found.doubling == pytest.approx(sign_gain(2 * batch) / sign_gain(batch), abs=3 * found.doubling_se)
    assert found.doubling_se < 0.03


def test_noise_scales_of_other_norms():
    size, running = 100_000, RunningGain()  # where noise is small, the mean may stand for the gradient
    layers = [D // 4, D - D // 4]
    for means in rounds(size):
        running = running.update(group_sums(means, size, lambda g: g, whole, layers), 0.95, GRAD_SQ, 0.0)
    found = scales(running)
    assert found["b_l2"] == pytest.approx(NOISE_SCALE, rel=0.02)
    assert found["b_l1"] == pytest.approx(DEVIATION.sum() ** 2 / np.abs(GRADIENT).sum() ** 2, rel=0.08)
    matrix, variance = GRADIENT.reshape(20, 30), (DEVIATION**2).reshape(20, 30)
    signal = np.linalg.norm(matrix, "nuc")
    noise = np.sqrt(variance.sum(axis=1)).sum()  # independent entries: E[(g - G)(g - G)^T] is diagonal
    assert found["b_nuclear"] == pytest.approx(noise**2 / signal**2, rel=0.05)
    first = GRADIENT[: layers[0]]
    expected = (DEVIATION[: layers[0]] ** 2).sum() / (first @ first)
    assert running.layers[0] / running.layers[1] == pytest.approx(expected, rel=0.04)


def test_plugged_in_gradients_hide_noise_as_the_documentation_says():
    running = RunningGain()
    for means in rounds(1):
        running = running.update(group_sums(means, 1, lambda g: g, whole, ()), 0.95, GRAD_SQ, 0.0)
    true = DEVIATION.sum() ** 2 / np.abs(GRADIENT).sum() ** 2
    assert scales(running)["b_l1"] < math.pi / 2 * GROUPS < true


def test_a_convolution_is_a_matrix_of_filters_and_vectors_do_not_count():
    means = torch.from_numpy(np.random.default_rng(1).normal(size=(4, 54)))

    def shaped(vectors):
        return [vectors.view(-1, 6, 1, 3, 3)]

    def flat(vectors):
        return [vectors.view(-1, 6, 9), vectors]

    two = [group_sums(means, 1.0, lambda g: g, how, ()).norms for how in (shaped, flat)]
    assert two[0] == two[1]
