import math

import pytest

from fedbatch.batch.average import Interval
from fedbatch.controllers import AdaScale, Observation, Phase

LARGE = Phase("large", 64, 4)


def seen(round_, noise, size=256.0, rounds=100):
    interval = None if noise is None else Interval(noise, noise, noise, 5.0)
    return Observation(round_, size, interval, "examples", 0, rounds=rounds)


def gain(noise, scale=4.0):
    controller = AdaScale(LARGE, scale)
    return controller.next(controller.start(), seen(0, noise)).lr_factor


def test_gain_by_the_formula_of_the_source():
    """r = (s + m) / (s / S + m), s the variance of a small batch's gradient and m the gradient's squared length."""
    for noise in (0.0, 10.0, 64.0, 1000.0):
        s, m = noise / 64, 1.0
        assert gain(noise) == pytest.approx((s + m) / (s / 4 + m))
    assert gain(0.0) == 1.0 and gain(math.inf) == 4.0 and gain(1e12) == pytest.approx(4.0)
    assert gain(None) == 1.0, "until it is known"


def test_the_clock_adds_gains_and_is_a_share_of_the_small_batchs_steps():
    controller = AdaScale(LARGE, 4.0)
    state = controller.start()
    for round_ in range(3):
        state = controller.next(state, seen(round_, 64.0))
    r = (1 + 1) / (1 + 0.25)
    assert state.memory == pytest.approx((1 + 2 * r,)) and state.share == pytest.approx((1 + 2 * r) / 100)
    assert not state.is_change_of(controller.start()), "no change of phase, which would be shown and ramped"


def test_a_round_without_a_measurement_keeps_the_gain():
    controller = AdaScale(LARGE, 4.0)
    state = controller.next(controller.start(), seen(0, 64.0))
    assert controller.next(state, seen(1, None)).lr_factor == state.lr_factor
    assert controller.next(state, seen(1, 64.0, size=0.0)).lr_factor == state.lr_factor


def test_a_batch_that_is_not_larger_is_plain_training():
    controller = AdaScale(LARGE, 1.0)
    state = controller.next(controller.start(), seen(0, 1e5))
    assert (state.lr_factor, state.share) == (1.0, 0.01)
    for scale in (0.5, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"controller.scale must be at least 1"):
            AdaScale(LARGE, scale)
