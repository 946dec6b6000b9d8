"""The ladder climbs when its test is sure, by rounds of the rung alone."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from fedbatch.batch.average import Interval
from fedbatch.controllers import ControlState, NoiseScaleLadder, Observation, Phase
from fedbatch.controllers.noise_scale_ladder import WINDOWS, Z, between, is_above_zero

SMALL, LARGE = Phase("small", 16, 4), Phase("large", 64, 16)
KNOWN = Interval(90.0, 60.0, 150.0, 20.0)


def seen(round_, size, trace, grad_sq, noise=KNOWN):
    return Observation(round_, size, noise, "examples", 0, trace, grad_sq)


def climb(controller, rounds, trace, grad_sq, state=None, average=None):
    """States after each round, with the batch of the phase; ``average`` or else the ratio of all sums is known."""
    state, states, sums = state or controller.start(), [], np.zeros(2)
    for round_ in range(rounds):
        phase = next(p for p in controller.phases if p.name == state.phase)
        sums += trace(round_), grad_sq(round_)
        value = average or (sums[0] / sums[1] if sums[1] > 0 else math.inf)
        batch = phase.cohort_size * phase.client_batch_size
        known = Interval(value, value / 2, 2 * value, 20.0)
        state = controller.next(state, seen(round_, batch, trace(round_), grad_sq(round_), known))
        states.append(state)
    return states


def sizes(small, large):
    return [(p.cohort_size, p.client_batch_size) for p in between(small, large)]


def test_rungs_double_the_cohort_and_then_the_client_batch():
    assert sizes(SMALL, LARGE) == [(32, 4), (64, 4), (64, 8)]
    assert sizes(SMALL, Phase("large", 100, 4)) == [(32, 4), (64, 4)]
    assert sizes(SMALL, Phase("large", 16, 64)) == [(16, 8), (16, 16), (16, 32)]
    assert sizes(Phase("small", 4, None), Phase("large", 16, None)) == [(8, None)]
    assert sizes(Phase("small", 4, 8), Phase("large", 16, None)) == [(8, 8), (16, 8)]


def test_no_rung_where_a_size_shrinks_or_the_ends_are_near():
    assert sizes(Phase("small", 64, 4), Phase("large", 16, 64)) == []
    assert (
        sizes(Phase("small", 16, 16), Phase("large", 64, 4)) == sizes(Phase("small", 16), Phase("large", 64, 4)) == []
    )
    assert sizes(SMALL, Phase("large", 32, 4)) == [] and sizes(SMALL, Phase("large", 24, 4)) == []
    assert sizes(SMALL, Phase("large", 40, 4)) == [], "32 to 40 is no rung of its own"


@pytest.mark.parametrize("large", [Phase("large", c, b) for c in (16, 20, 33, 100) for b in (4, 7, 64)])
def test_each_rung_is_larger_than_the_one_before_and_none_is_too_large(large):
    rungs = NoiseScaleLadder(SMALL, large).rungs
    batches = [p.cohort_size * p.client_batch_size for p in rungs]
    assert all(b >= math.sqrt(2) * a for a, b in pairwise(batches)) or len(rungs) == 2
    assert all(p.cohort_size <= large.cohort_size and p.client_batch_size <= large.client_batch_size for p in rungs)


def test_rates_between_are_in_equal_ratios():
    ladder = NoiseScaleLadder(replace(SMALL, lr=0.1), replace(LARGE, lr=1.6))
    assert [p.lr for p in ladder.rungs] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6])
    with pytest.raises(ValueError, match="lr to both small and large, or to neither"):
        NoiseScaleLadder(SMALL, replace(LARGE, lr=1.6))


def test_it_climbs_a_rung_after_twelve_rounds_when_noise_is_clearly_above_the_batch():
    states = climb(NoiseScaleLadder(SMALL, LARGE), 50, lambda t: 1000.0 + t % 2, lambda t: 0.5)
    assert [s.phase for s in states] == ["small"] * 11 + ["x2"] * 12 + ["x4"] * 12 + ["x8"] * 12 + ["large"] * 3
    assert [s.since_round for s in states][10:12] == [0, 12] and states[11].memory == ()


def test_it_stops_where_the_batch_is_as_large_as_the_noise_scale():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(400, 2))
    states = climb(NoiseScaleLadder(SMALL, LARGE), 400, lambda t: 200 + 20 * noise[t, 0], lambda t: 1 + noise[t, 1] / 2)
    assert states[-1].phase == "x4", "128 is below 200, 256 above"


def test_the_test_is_the_t_statistic_of_the_differences():
    values = np.array([3.0, -1.0, 4.0, 1.0, -5.0, 9.0])
    statistic = stats.ttest_1samp(values, 0.0).statistic
    for shift in (-1.0, 0.0, 1.0, 2.0, 5.0):
        assert is_above_zero(values + shift) == (stats.ttest_1samp(values + shift, 0.0).statistic > Z), statistic


def test_differences_are_of_trace_and_batch_times_gradient():
    """D = trace - 2 * 64 * |G|^2: at N = 127 it stays whatever the certainty, at 129 it goes."""
    for noise, phase in ((127.0, "small"), (129.0, "x2")):
        states = climb(NoiseScaleLadder(SMALL, LARGE, up=2.0), 12, lambda t, n=noise: n, lambda t: 1.0)
        assert states[-1].phase == phase


def test_rounds_whose_gradient_is_lost_count():
    states = climb(NoiseScaleLadder(SMALL, LARGE), 12, lambda t: 100.0, lambda t: -0.1 * (t % 2), average=90.0)
    assert states[-1].phase == "x2" and "noise scale inf over 12 rounds" in states[-1].reason
    assert states[-1].lr_noise_scale == 90.0, "the average, where the rung's own is infinite"


@pytest.mark.parametrize(("noise_scale", "climbs"), [(45.0, (0.0, 0.1)), (64.0, (0.2, 0.8)), (90.0, (0.95, 1.0))])
def test_how_often_it_climbs_in_a_hundred_rounds(noise_scale, climbs):
    """With a spread of D of half the batch's share, as in the default run: below the batch hardly ever."""
    rng, climbed = np.random.default_rng(1), 0
    for _ in range(60):
        noise = rng.normal(size=100)
        states = climb(
            NoiseScaleLadder(SMALL, Phase("large", 32, 4)),
            100,
            lambda t, n=noise: noise_scale + 40 * n[t],
            lambda t: 1.0,
        )
        climbed += states[-1].phase != "small"
    assert climbs[0] <= climbed / 60 <= climbs[1]


def test_a_short_window_between_two_spikes_of_the_gradient_is_not_enough():
    """|G|^2 is 0.3 but for a spike every 20 rounds: windows between say N = 213, the sums say 48."""
    states = climb(NoiseScaleLadder(SMALL, LARGE), 200, lambda t: 64.0 + t % 2, lambda t: 20.0 if t % 20 == 0 else 0.3)
    assert states[-1].phase == "small"


def test_it_remembers_the_longest_window_and_no_more():
    states = climb(NoiseScaleLadder(SMALL, LARGE), 80, lambda t: 10.0 + t, lambda t: 3.0)
    assert states[-1].phase == "small" and len(states[-1].memory) == 3 * WINDOWS[-1]
    assert states[-1].memory[:3] == (40.0, 3.0, 64.0)


def test_it_comes_down_where_the_batch_is_far_above_the_noise():
    ladder = NoiseScaleLadder(SMALL, LARGE, down=0.5)
    states = climb(ladder, 60, lambda t: 100.0, lambda t: 1.0, ControlState("large", since_round=0))
    assert [s.phase for s in states if s.memory == ()] == ["x8", "x4", "x2"], "at 128, half of which is below 100"
    assert "surely < 0.5 x batch 1024" in states[11].reason


def test_rounds_are_passed_over_while_it_settles():
    states = climb(NoiseScaleLadder(SMALL, LARGE, settle_rounds=3), 15, lambda t: 1000.0, lambda t: 1.0)
    assert [s.phase for s in states] == ["small"] * 14 + ["x2"] and len(states[13].memory) == 33


@pytest.mark.parametrize("missing", [{"noise_scale": None}, {"trace": None, "grad_sq": None}, {"size": 0.0}])
def test_it_holds_without_a_measurement(missing):
    controller = NoiseScaleLadder(SMALL, LARGE)
    assert controller.next(controller.start(), replace(seen(5, 64.0, 1e3, 1.0), **missing)) == controller.start()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"down": 3.0}, "down < up"),
        ({"down": -1.0}, "down < up"),
        ({"settle_rounds": -1}, "settle_rounds"),
        ({"small": Phase("large", 16, 4)}, "different names"),
        ({"small": Phase("x2", 16, 4)}, "different names"),
    ],
)
def test_what_cannot_work_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        NoiseScaleLadder(**{"small": SMALL, "large": LARGE, **kwargs})
