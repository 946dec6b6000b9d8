"""The phase with the most progress for its cost."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbatch.batch.average import Interval
from fedbatch.batch.time_model import TimeModel
from fedbatch.controllers.goodput import COSTS, Goodput
from fedbatch.controllers.phase import ControlState, Observation, Phase

SMALL, MIDDLE, LARGE = Phase("small", 16, 4), Phase("middle", 64, 4), Phase("large", 64, 16)
PHASES = {"a": SMALL, "b": MIDDLE, "c": LARGE}
LAN = TimeModel(0.001, 0.0, 0.001, 1e8, 1e8)


def controller(cost, **kwargs):
    return Goodput(PHASES, cost, LAN, **{"settle_rounds": 5, **kwargs})


def seen(value, low=None, high=None, round_=10, unit="examples"):
    # The size of the round itself does not matter: Poisson sampling may leave it empty.
    return Observation(round_, 0.0, Interval(value, low or value, high or value, 10.0), unit, model_bytes=200_000)


def after(cost, value, start="small", unit="examples", **kwargs):
    return controller(cost, **kwargs).next(ControlState(start), seen(value, unit=unit)).phase


def test_rounds_alone_ask_for_large_and_examples_alone_for_small_batches():
    for noise in (10.0, 100.0, 1e4, math.inf):
        assert after("rounds", noise) == "large"
    for noise in (0.0, 10.0, 1000.0):
        assert after("examples", noise, "large") == "small"


def test_bytes_and_seconds_turn_where_computed_by_hand():
    # Bytes: 16 (1 + N/64) = 64 (1 + N/1024) at N = 256.
    assert after("bytes", 200.0) == "small" and after("bytes", 320.0) == "large"
    # Seconds: middle 0.010 (1 + N/256), large 0.022 (1 + N/1024); equal at N = 683.
    assert after("seconds", 600.0) == "middle" and after("seconds", 800.0) == "large"
    assert controller("seconds").cost(MIDDLE, 200_000) == pytest.approx(0.010)
    assert controller("seconds").cost(LARGE, 200_000) == pytest.approx(0.022)


def test_reason_says_what_is_promised_and_the_noise_scale_is_held_for_the_learning_rate():
    state = controller("bytes").next(ControlState("small"), seen(448.0, 300.0, 500.0))
    # 16 (1 + 7) / (64 (1 + 0.4375))
    assert state.reason == "noise scale 448 [300, 500]: large makes 1.39 times the progress for its bytes"
    assert (state.since_round, state.lr_noise_scale) == (11, 448.0)
    assert controller("rounds").next(ControlState("small"), seen(math.inf)).lr_noise_scale is None


def test_it_waits_for_margin_for_sureness_and_for_the_phase_to_settle():
    assert after("bytes", 270.0, margin=1.0) == "large" and after("bytes", 270.0, margin=1.1) == "small"
    unsure, start = seen(448.0, 200.0, 900.0), ControlState("small")
    assert controller("bytes").next(start, unsure) == start
    assert controller("bytes").next(start, seen(448.0, round_=3)) == start
    assert controller("bytes").next(start, Observation(10, 64.0, None, "examples", 0)) == start


def test_after_local_steps_a_larger_client_batch_is_no_more_clients():
    # Bytes, in clients: 16 (1 + N/16) < 64 (1 + N/64) whatever N; rounds: 64 clients of either batch are the same.
    assert after("bytes", 80.0, unit="clients") == "small"
    assert after("rounds", 80.0, unit="clients") == "middle"


def test_seconds_are_those_of_the_median_client():
    uneven = Goodput(PHASES, "seconds", replace(LAN, speed_spread=1.0))
    assert uneven.cost(LARGE, 200_000) == pytest.approx(0.022)


@given(noise=st.floats(0, 1e6), cost=st.sampled_from(COSTS))
def test_no_other_phase_is_better_than_the_one_that_it_stays_with(noise, cost):
    asked = controller(cost, margin=1.0)
    state = ControlState("small")
    for round_ in (10, 30, 50):
        state = asked.next(state, seen(noise, round_=round_))

    def goodput(phase):
        batch = phase.cohort_size * phase.client_batch_size
        return 1 / (1 + noise / batch) / asked.cost(phase, 200_000)

    stays = next(phase for phase in asked.phases if phase.name == state.phase)
    assert goodput(stays) == pytest.approx(max(map(goodput, asked.phases)))


def test_arguments_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="one of rounds, examples, bytes, seconds"):
        controller("money")
    with pytest.raises(ValueError, match="margin"):
        controller("bytes", margin=0.9)
    with pytest.raises(ValueError, match="name of its own"):
        Goodput({"a": SMALL, "b": SMALL}, "bytes", LAN)
    with pytest.raises(ValueError, match=r"controller.phases.a.client_batch_size"):
        Goodput({"a": Phase("all", 4)}, "bytes", LAN)


def spend(asked, noise, rounds=400):
    """Names of the phases by round until the budget is spent, and the last state."""
    state, names = asked.start(), []
    for round_ in range(rounds):
        names.append(state.phase)
        state = asked.next(state, seen(noise, round_=round_))
        if (state.share or 0) >= 1:
            break
    return names, state


def test_a_budget_ends_in_larger_batches_of_equal_cost_and_then_the_run():
    names, state = spend(controller("examples", budget=64 * 300.0, finish=0.4), 100.0)
    counts = [names.count(name) * size for name, size in (("small", 64), ("middle", 256), ("large", 1024))]
    assert names == sorted(names, key=["small", "middle", "large"].index)
    assert counts == pytest.approx([0.6 * 19200, 0.2 * 19200, 0.2 * 19200], abs=1024)
    assert sum(counts) == pytest.approx(19200, abs=1024) and state.share >= 1
    assert state.reason == "80% of the budget is spent: noise is averaged out in larger batches"


def test_before_its_end_a_budget_changes_nothing():
    for cost in COSTS:
        told, asked = controller(cost, budget=1e9), controller(cost)
        left, right = told.start(), asked.start()
        for round_ in range(60):
            left, right = told.next(left, seen(300.0, round_=round_)), asked.next(right, seen(300.0, round_=round_))
            assert replace(left, memory=(), share=None) == right


def test_where_the_largest_is_best_a_budget_stays_there():
    names, _ = spend(controller("rounds", budget=100.0), 500.0)
    assert names == ["small"] * 5 + ["large"] * 95


def test_no_share_is_kept_for_the_end_where_none_is_asked_for():
    assert set(spend(controller("examples", budget=64 * 50.0, finish=0.0), 100.0)[0]) == {"small"}


def test_budgets_that_cannot_be_are_refused():
    for kwargs in ({"budget": 0.0}, {"budget": math.nan}, {"finish": 1.0}, {"finish": -0.1}):
        with pytest.raises(ValueError, match="budget must be > 0 or null, finish"):
            controller("bytes", **kwargs)
