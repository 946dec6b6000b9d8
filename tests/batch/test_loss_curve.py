import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbatch.batch.loss_curve import MOST, jumps, loss_curve

RNG = np.random.default_rng


def test_a_straight_line_is_kept():
    curve = loss_curve(np.arange(50), 100 - np.arange(50.0))
    assert curve.falling().steps_to(70.0) == pytest.approx(30) and curve.falling().after(30.0) == pytest.approx(70)
    assert np.abs(curve.residuals).max() < 1e-9 and curve.climb == 0


def test_where_windows_are_cut_off_their_mean_step_moves_too():
    curve = loss_curve([0, 1, 2, 3], [8.0, 6.0, 4.0, 2.0])
    assert curve.steps == pytest.approx([0.5, 1, 2, 2.5]) and curve.losses == pytest.approx([7, 6, 4, 3])


def test_a_goal_that_is_not_reached():
    falling = loss_curve(np.arange(20), 1 + np.exp(-np.arange(20.0))).falling()
    assert np.isnan(falling.steps_to(0.9)) and falling.steps_to(5.0) == falling.steps[0]


def test_one_low_outlier_is_no_arrival():
    losses = 10 - np.arange(100) / 10
    losses[20] = 0.5
    falling = loss_curve(np.arange(100), losses).falling()
    assert falling.steps_to(3.0) == pytest.approx(70, abs=1)


def test_what_comes_after_the_lowest_point_is_left_out():
    losses = np.concatenate([np.linspace(10, 1, 50), np.linspace(1, 9, 50)])
    curve = loss_curve(np.arange(100), losses)
    assert curve.falling().steps_to(3.0) == pytest.approx(38, abs=2) and curve.climb > 6


@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_noisy_arrivals_are_right_on_average_and_covered(noise):
    # 2.3 exp(-t / 100) is 1 after 83.3 steps; the noise is that of a small batch's own loss.
    true, hits, found = 100 * np.log(2.3), 0, []
    for seed in range(100):
        rng = RNG(seed)
        curve = loss_curve(np.arange(300), 2.3 * np.exp(-np.arange(300) / 100) + noise * rng.normal(size=300))
        drawn = np.sort([falling.steps_to(1.0) for falling in curve.resampled(rng, 100)])
        hits += drawn[5] <= true <= drawn[94]
        found.append(curve.falling().steps_to(1.0))
    assert np.mean(found) == pytest.approx(true, rel=0.02) and 0.75 <= hits / 100 <= 1.0


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([1e-3, 5.0, 1e4]))
def test_equivariant_in_the_unit_of_the_loss(seed, factor):
    rng = RNG(seed)
    losses = np.exp(-np.arange(60) / 20) + 0.1 * rng.normal(size=60)
    one, other = (loss_curve(np.arange(60), scale * losses) for scale in (1, factor))
    assert one.falling().steps_to(0.5) == pytest.approx(other.falling().steps_to(0.5 * factor), nan_ok=True)
    assert jumps(factor * losses) == pytest.approx(factor * jumps(losses))
    falling = one.falling()
    assert (np.diff(falling.losses) < 0).all() and (np.diff(falling.steps) > 0).all()


def test_long_records_are_thinned_and_gaps_left_out():
    curve = loss_curve(np.arange(10_000), 10_000 - np.arange(10_000.0))
    assert len(curve.steps) <= MOST and curve.falling().steps_to(5_000.0) == pytest.approx(5_000)
    gaps = np.where(np.arange(40) % 4, np.nan, 40.0 - np.arange(40))
    assert loss_curve(np.arange(40), gaps).falling().steps_to(20.0) == pytest.approx(20)


def test_jumps_are_the_spread_about_the_neighbours():
    rng = RNG(0)
    assert jumps(10 + 0.3 * rng.normal(size=20_000)) == pytest.approx(0.3, rel=0.03)
    assert jumps(np.exp(-np.arange(30.0))) == pytest.approx(0, abs=1e-12) and jumps([1.0, 9.0]) == 0.0


@pytest.mark.parametrize("steps, losses", [([0, 1], [1.0]), (range(5), [1, 2, 3, np.nan, np.inf])])
def test_refusals(steps, losses):
    with pytest.raises(ValueError, match=r"equally long|at least 4 finite losses \(got 3\)"):
        loss_curve(steps, losses)
