import math

import pytest

from fedbatch.batch.average import Interval
from fedbatch.controllers import Adaptive, Fixed, NoiseScaleSwitch, Schedule, doubling
from fedbatch.controllers.phase import Observation, Phase

SMALL, LARGE = Phase("small", 16, 4), Phase("large", 64, 16)


def seen(round_, size, low, high):
    return Observation(round_, size, Interval(math.sqrt(low * high), low, high, 10.0), "examples", 0)


def switch(**kwargs):
    return NoiseScaleSwitch(SMALL, LARGE, **{"up": 2.0, "down": 0.1, "settle_rounds": 5, **kwargs})


def test_fixed_never_moves():
    controller = Fixed(SMALL)
    assert controller.next(controller.start(), seen(9, 64, 1e6, 1e7)) == controller.start()


def test_schedule_changes_at_its_rounds_only():
    controller = Schedule({"a": LARGE, "b": SMALL}, {"a": 3, "b": 0})
    state, names = controller.start(), []
    for round_ in range(5):
        names.append(state.phase)
        state = controller.next(state, seen(round_, 64, 50, 60))
    assert names == ["small", "small", "small", "large", "large"] and state.since_round == 3
    for starts in ({"a": 5}, {"b": 0}, {}):
        with pytest.raises(ValueError, match="one of them 0"):
            Schedule({"a": SMALL}, starts)


def test_doubling():
    phases = doubling(cohort_size=10, client_batch_size=4, every_rounds=20, times=2, double="cohort").phases
    assert [(p.cohort_size, p.client_batch_size) for p in phases] == [(10, 4), (20, 4), (40, 4)]
    phases = doubling(cohort_size=10, client_batch_size=4, every_rounds=20, times=1, double="batch").phases
    assert [(p.cohort_size, p.client_batch_size) for p in phases] == [(10, 4), (10, 8)]


def test_switch_goes_up_only_when_the_lower_bound_is_clear():
    controller = switch()
    state = controller.start()
    assert controller.next(state, seen(10, 64, 127, 1000)) == state
    up = controller.next(state, seen(10, 64, 129, math.inf))
    assert (up.phase, up.since_round) == ("large", 11) and "> 2 x batch 64" in up.reason


def test_switch_holds_while_it_settles():
    controller = switch()
    state = controller.start()
    assert controller.next(state, seen(3, 64, 1e4, 1e5)) == state
    assert controller.next(state, seen(4, 64, 1e4, 1e5)).phase == "large"


def test_switch_comes_down_with_hysteresis():
    controller = switch()
    large = controller.next(controller.start(), seen(10, 64, 200, 300))
    assert controller.next(large, seen(40, 1024, 60, 103)) == large
    assert controller.next(large, seen(40, 1024, 60, 102)).phase == "small"
    assert controller.next(large, seen(14, 1024, 60, 102)) == large, "still settling"


def test_switch_holds_without_a_measurement():
    controller = switch()
    assert controller.next(controller.start(), Observation(50, 64, None, "examples", 0)) == controller.start()


@pytest.mark.parametrize("kwargs", [{"down": 3.0}, {"down": -1.0}])
def test_thresholds_that_would_flip_at_once_are_refused(kwargs):
    with pytest.raises(ValueError, match="down < up"):
        switch(**kwargs)


def test_adaptive_follows_the_square_root_in_steps_and_clamps():
    controller = Adaptive(Phase("adaptive", 16, 4), 400.0, 4, 100, step=1.5, settle_rounds=2)
    state = controller.start()
    moved = controller.next(state, seen(5, 64, 99.9, 100.1))  # sqrt(400 * 100) = 200 examples = 50 clients of 4
    assert moved.cohort_size == 50 and moved.since_round == 6
    assert controller.next(state, seen(5, 64, 12, 16)) == state, "sqrt(400 * 13.9) = 74.5: 19 clients, within the step"
    assert controller.next(moved, seen(6, 200, 1e9, 1.1e9)) == moved, "settling"
    assert controller.next(moved, seen(20, 200, 1e9, 1.1e9)).cohort_size == 100
    assert controller.next(moved, seen(20, 200, 1e3, math.inf)) == moved, "not identified"
