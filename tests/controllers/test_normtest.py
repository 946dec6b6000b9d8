import math

import pytest

from fedbatch.batch.average import Interval
from fedbatch.controllers import NormTest, Observation, Phase

START = Phase("norm_test", 16, 4)


def seen(round_, size, noise, unit="examples"):
    return Observation(round_, size, Interval(noise, 0.0, math.inf, 5.0), unit, 0)


def test_the_cohort_grows_to_noise_scale_over_eta_squared_and_never_shrinks():
    controller = NormTest(START, 0.5, 100, every_rounds=5)
    state = controller.start()
    grown = controller.next(state, seen(4, 64.0, 25.0))  # 25 / 0.25 = 100 examples = 25 clients of 4
    assert (grown.cohort_size, grown.since_round, grown.lr_noise_scale) == (25, 5, 25.0)
    assert grown.reason == "noise scale 25 / 0.5^2 = 100 is above batch 64"
    assert controller.next(grown, seen(9, 100.0, 25.0)) == grown == controller.next(grown, seen(9, 100.0, 3.0))
    assert controller.next(grown, seen(9, 100.0, 25.9)).cohort_size == 26
    assert controller.next(grown, seen(9, 100.0, 1e6)).cohort_size == 100


def test_it_tests_every_so_many_rounds():
    controller = NormTest(START, 1.0, 100, every_rounds=5)
    moved = [controller.next(controller.start(), seen(t, 64.0, 200.0)).cohort_size for t in range(10)]
    assert moved == [16] * 4 + [50] + [16] * 4 + [50]


def test_clients_after_local_steps():
    """K >= N / eta^2 clients, each with many examples."""
    state = NormTest(START, 1.0, 100, every_rounds=1)
    assert state.next(state.start(), seen(0, 16.0, 40.0, "clients")).cohort_size == 40


def test_an_infinite_noise_scale_takes_the_largest_and_keeps_the_rate():
    controller = NormTest(START, 1.0, 100, every_rounds=1)
    state = controller.next(controller.start(), seen(0, 64.0, math.inf))
    assert state.cohort_size == 100 and state.lr_noise_scale is None


def test_it_holds_without_a_measurement():
    controller = NormTest(START, 1.0, 100, every_rounds=1)
    assert controller.next(controller.start(), Observation(0, 64.0, None, "examples", 0)) == controller.start()
    assert controller.next(controller.start(), seen(0, 0.0, 1e6)) == controller.start(), "an empty round"


def test_both_ends_are_checked_before_the_run():
    assert [p.cohort_size for p in NormTest(START, 1.0, 100).phases] == [16, 100]
    for wrong, message in (((START, 0.0, 100), "eta"), ((START, 1.0, 8), "max_cohort_size"), ((START, 1.0, 99, 0), "")):
        with pytest.raises(ValueError, match=f"controller.*{message}"):
            NormTest(*wrong)
