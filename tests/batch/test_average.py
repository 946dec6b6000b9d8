import math

import numpy as np
import pytest

from fedbatch.batch.average import RunningNoiseScale
from fedbatch.batch.noise_scale import NoiseScale


def measured(grad_sq, trace, se=0.0):
    return NoiseScale(grad_sq, trace, trace / grad_sq, se, se)


def test_bias_corrected_average_by_hand():
    tracker = RunningNoiseScale(decay=0.5).update(measured(1.0, 4.0)).update(measured(3.0, 10.0))
    average = tracker.average()  # weights 1/3 and 2/3
    assert average.grad_sq == pytest.approx((1 + 2 * 3) / 3) and average.trace == pytest.approx((4 + 20) / 3)
    assert average.scale == pytest.approx(24 / 7)


def test_negative_rounds_are_averaged_not_clamped():
    rng = np.random.default_rng(0)
    tracker = RunningNoiseScale(decay=0.999)
    for _ in range(8000):
        tracker = tracker.update(measured(1.0 + 3 * rng.normal(), 500.0))
    assert tracker.average().scale == pytest.approx(500, rel=0.15)


def test_effective_rounds_of_a_long_average():
    tracker = RunningNoiseScale(decay=0.9)
    for _ in range(500):
        tracker = tracker.update(measured(1.0, 1.0))
    assert tracker.interval().effective_rounds == pytest.approx(1.9 / 0.1, rel=1e-6)


def test_interval_covers_the_truth_as_often_as_it_says_or_more():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        tracker = RunningNoiseScale(decay=0.9)
        for _ in range(60):
            tracker = tracker.update(NoiseScale(1 + 0.5 * rng.normal(), 50 + 5 * rng.normal(), 0.0, 0.5, 5.0))
        interval = tracker.interval()
        covered += interval.low <= 50 <= interval.high
    assert covered / 400 >= 0.87


def test_not_identified_means_an_open_interval():
    interval = RunningNoiseScale().update(NoiseScale(0.1, 5.0, 50.0, 1.0, 0.1)).interval()
    assert math.isinf(interval.high) and 0 < interval.low < 50
    lost = RunningNoiseScale().update(NoiseScale(-1.0, 5.0, math.nan, 0.1, 0.1)).interval()
    assert math.isinf(lost.value) and math.isinf(lost.low)


def test_nothing_before_the_first_round():
    assert RunningNoiseScale().interval() is None and math.isnan(RunningNoiseScale().average().scale)
    with pytest.raises(ValueError, match="decay"):
        RunningNoiseScale(decay=1.0)


def effective(tracker, rounds):
    for _ in range(rounds):
        tracker = tracker.update(measured(1.0, 1.0))
    return tracker.interval().effective_rounds


def test_memory_grows_with_the_rounds_and_is_never_less_than_the_decays():
    assert effective(RunningNoiseScale(decay=0.9, memory=0.2), 60) == pytest.approx(19, rel=0.01)
    for rounds in (1000, 4000):
        assert effective(RunningNoiseScale(decay=0.9, memory=0.2), rounds) == pytest.approx(0.2 * rounds, rel=0.15)
    assert effective(RunningNoiseScale(decay=0.98, memory=0.0), 4000) == pytest.approx(99, rel=0.01)


def test_with_a_memory_the_weights_still_sum_to_one():
    tracker = RunningNoiseScale(decay=0.5, memory=0.5)
    for _ in range(50):
        tracker = tracker.update(measured(2.0, 6.0))
    assert tracker.average().grad_sq == pytest.approx(2.0) and tracker.average().scale == pytest.approx(3.0)


def test_the_first_gradients_are_forgotten_and_a_long_run_is_averaged():
    """|G|^2 falls as 1 / round: half of all rounds ago it was twice as large, whatever the length of the run."""
    for rounds in (200, 3000):
        tracker = RunningNoiseScale(decay=0.9, memory=0.2)
        for round_ in range(rounds):
            tracker = tracker.update(measured(1 / (round_ + 1), 1.0))
        assert rounds < tracker.average().scale * 1.25 and tracker.average().scale < rounds


def test_a_tracker_of_an_earlier_version_goes_on_as_it_was():
    old = {"decay": 0.98, "z": 1.645, "trace": 3.0, "grad_sq": 0.5, "trace_var": 0.1, "grad_sq_var": 0.1}
    tracker = RunningNoiseScale(**old, weight=0.8, sq_weight=0.1)
    after = tracker.update(measured(1.0, 2.0))
    assert after.trace == 0.98 * 3.0 + (1 - 0.98) * 2.0 and after.weight == 0.98 * 0.8 + (1 - 0.98)
    for memory in (-0.1, 1.5):
        with pytest.raises(ValueError, match=r"noise_scale.memory must be in \[0, 1\]"):
            RunningNoiseScale(memory=memory)
