"""The fitted gain curve against curves that are known, and what its averages keep."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from fedbatch.batch.gain import GroupSums, RunningGain, fit, ratio, scales


def seen(noise_scale, size=8.0, levels=3, grad_sq=2.0, wobble=1.0):
    """What SGD's groups say on average: nothing beside |G|^2 along, and |g|^2 linear in 1 / B."""
    batches = size * 2.0 ** np.arange(levels)
    squares = wobble * grad_sq * (1 + noise_scale / batches)
    norms = (noise_scale * grad_sq, grad_sq, 3.0, 2.0, 5.0, 0.0)
    return GroupSums(size, (0.0,) * levels, tuple(squares), (1.0,) * levels, norms, (6.0, 2.0, 1.0, -1.0))


@pytest.mark.parametrize("levels", [2, 3, 5])
@pytest.mark.parametrize("noise_scale", [5.0, 60.0, 700.0])
def test_for_sgd_the_curve_is_the_formula(noise_scale, levels):
    running = RunningGain()
    for wobble in (0.999, 1.0, 1.001, 1.0):
        running = running.update(seen(noise_scale, levels=levels, wobble=wobble), 0.9, 2.0, 0.002)
    found = fit(running)
    batch = 8.0 * 2**levels
    assert found.half == pytest.approx(noise_scale, rel=0.03)  # the grid has 2.2 % steps
    assert found.doubling == pytest.approx((1 + noise_scale / batch) / (1 + noise_scale / (2 * batch)), rel=0.01)
    assert found.half_low <= found.half <= found.half_high and found.doubling_se < 0.05
    assert found.share(found.half) == 0.5 and found.gains[0] == pytest.approx(found.share(8.0), rel=0.02)


def test_of_few_rounds_nothing_is_said_of_errors():
    running = RunningGain().update(seen(60.0), 0.9, 2.0, 0.1)
    found = fit(running)
    assert found.half == pytest.approx(60, rel=0.03)
    assert math.isnan(found.doubling_se) and math.isnan(found.half_low)
    assert fit(RunningGain()) is None and math.isnan(scales(RunningGain())["b_l2"])


def test_without_a_gradient_through_the_noise_doubling_the_batch_doubles_the_gain():
    running = RunningGain().update(seen(60.0), 0.9, -0.1, 0.1)
    found = fit(running)
    assert found.half == math.inf and found.doubling == 2.0 and found.share(1e9) == 0.0


def test_averages_are_weighted_means_of_what_was_seen():
    running, values = RunningGain(), [3.0, 5.0, 11.0]
    for value in values:
        running = running.update(seen(value), 0.9, 2.0, 0.0)
    weights = np.array([0.81, 0.9, 1.0])
    square = 2.0 * (1 + np.array(values) / 8)
    assert running.means[3] == pytest.approx(np.average(square, weights=weights))
    assert scales(running)["b_l2"] == pytest.approx(np.average(values, weights=weights))
    assert scales(running)["b_l1"] == 1.5 and scales(running)["b_nuclear"] == math.inf
    assert [ratio(*running.layers[i : i + 2]) for i in (0, 2)] == [3.0, math.inf]
    # Reliability weights: the variance of the mean is the weighted spread by sum(w^2) / (sum(w)^2 - sum(w^2)).
    spread = np.average((square - running.means[3]) ** 2, weights=weights)
    share = (weights**2).sum() / (weights.sum() ** 2 - (weights**2).sum())
    assert running.covariance()[3, 3] == pytest.approx(spread * share)


def test_other_groups_are_another_curve_and_the_value_is_plain():
    running = RunningGain().update(seen(60.0), 0.5, 2.0, 0.0).update(seen(60.0, size=9.0), 0.5, 2.0, 0.0)
    assert running.count == 2 and running.size == pytest.approx((0.8 * 8 + 9) / 1.8)  # the past keeps 0.8 at least
    assert running.update(seen(60.0, size=64.0), 0.5, 2.0, 0.0).count == 1
    assert RunningGain(**asdict(running)) == running


def test_a_round_of_infinities_is_passed_over_and_one_of_zeros_is_not_known():
    running = RunningGain().update(seen(60.0), 0.9, 2.0, 0.0)
    for wrong in (math.inf, math.nan, 1e200):  # whose square is beyond float64
        assert running.update(replace(seen(60.0), squares=(wrong, 1.0, 1.0)), 0.9, 2.0, 0.0) == running
    still = RunningGain()
    for _ in range(4):
        still = still.update(GroupSums(8.0, (0.0,) * 3, (0.0,) * 3, (0.0,) * 3, (0.0,) * 6), 0.9, 0.0, 0.0)
    found = fit(still)
    assert found.half == math.inf and np.isnan(found.gains).all() and math.isnan(scales(RunningGain())["b_l1"])
