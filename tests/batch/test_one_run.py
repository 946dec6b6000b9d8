import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbatch.batch.loss_curve import loss_curve
from fedbatch.batch.noiseless import Rounds
from fedbatch.batch.one_run import interval, to_losses

RNG = np.random.default_rng


def record(count=200, batch=8.0, seed=0):
    rng = RNG(seed)
    traces, grad_sqs = rng.normal(8, 2, count), rng.normal(1, 0.2, count) * np.exp(-np.arange(count) / 80)
    rounds = Rounds(traces, grad_sqs, np.full(count, batch), np.zeros(count, int))
    return rounds, loss_curve(np.arange(count), np.exp(-np.arange(count) / 50) + 0.01 * rng.normal(size=count))


def test_the_law():
    # N = 8 at a batch of 8; the loss 1 - t / 100 passes 0.5 after 50 rounds.
    rounds = Rounds(np.full(100, 8.0), np.ones(100), np.full(100, 8.0), np.zeros(100, int))
    (goal,) = to_losses(rounds, loss_curve(np.arange(101), 1 - np.arange(101) / 100), [0.5])
    assert (goal.steps, goal.examples, goal.s_min, goal.e_min, goal.b_crit) == pytest.approx((50, 400, 25, 200, 8))
    assert (goal.at(8).steps, goal.at(8).examples) == pytest.approx((50, 400))
    assert (goal.at(2).steps, goal.at(2).examples) == pytest.approx((125, 250))
    assert goal.at(200).steps == pytest.approx(26)
    assert goal.b_crit_interval == pytest.approx((8, 8)) and goal.at(2).steps_interval == pytest.approx((125, 125))


def test_losses_that_are_not_passed_are_left_out():
    rounds, curve = record()
    assert [goal.loss for goal in to_losses(rounds, curve, [5.0, 0.5, 1e-9])] == [0.5]


def test_a_lost_gradient_has_an_infinite_critical_batch():
    rounds, curve = record()
    lost = Rounds(rounds.traces, np.full(200, -1.0), rounds.batch_sizes, rounds.phases)
    (goal,) = to_losses(lost, curve, [0.5])
    assert (goal.s_min, goal.b_crit, goal.saturated) == (0.0, np.inf, pytest.approx(1.0))
    assert goal.b_crit_interval == (np.inf, np.inf) and goal.e_min == pytest.approx(8 * goal.steps)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.1, 0.8), st.sampled_from([2.0, 8.0, 300.0]), st.floats(1.1, 50.0))
def test_more_in_a_batch_is_fewer_steps_and_more_examples(seed, loss, batch, factor):
    rounds, curve = record(seed=seed, batch=batch)
    for goal in to_losses(rounds, curve, [loss]):
        assert goal.at(batch).steps == pytest.approx(goal.steps) and goal.examples == pytest.approx(batch * goal.steps)
        small, large = goal.at(batch), goal.at(batch * factor)
        assert large.steps <= small.steps and large.examples >= small.examples
        assert large.examples <= factor * small.examples + 1e-6
        assert goal.s_min_interval[0] <= goal.s_min_interval[1] and goal.at(3).steps_interval[0] > 0


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from([1e-3, 30.0]), st.sampled_from([0.25, 12.0]))
def test_the_units_do_not_matter(seed, loss_unit, size):
    rounds, curve = record(seed=seed)
    (goal,) = to_losses(rounds, curve, [0.4])
    scaled = loss_curve(curve.steps, curve.losses * loss_unit)
    (other,) = to_losses(rounds, scaled, [0.4 * loss_unit])
    again = loss_curve(curve.steps, curve.losses)
    assert other.steps == pytest.approx(to_losses(rounds, again, [0.4])[0].steps, rel=1e-6)
    in_portions = goal.in_units_of(size)
    assert in_portions.at(8 / size).steps == pytest.approx(goal.at(8).steps)
    assert in_portions.at(8 / size).steps_interval == pytest.approx(goal.at(8).steps_interval)
    assert in_portions.b_crit * size == pytest.approx(goal.b_crit)


def test_the_moment_of_a_noisy_loss_widens_the_interval():
    rounds, _ = record()
    losses, rng = np.exp(-np.arange(200) / 50), RNG(1)
    widths = []
    for noise in (0.0, 0.1):
        (goal,) = to_losses(rounds, loss_curve(np.arange(200), losses + noise * rng.normal(size=200)), [0.4])
        low, high = goal.at(8).steps_interval
        widths.append(high / low)
    assert widths[0] < 1.01 and widths[1] > 1.05


def isotropic(batch, clients, rounds, seed, rate=0.02, size=60, noise=3.0):
    """SGD on |w|^2 / 2 at ``rate`` times the best rate of every step, which makes ``1 / (1 + N / B)`` of the way."""
    rng, w, found = RNG(seed), np.ones(size) / np.sqrt(size), []
    each = batch // clients
    for _ in range(rounds):
        sent = w + noise / np.sqrt(size * each) * rng.normal(size=(clients, size))
        mean = sent.mean(axis=0)
        trace = ((sent**2).sum(axis=1).mean() - mean @ mean) / (1 / each - 1 / batch)
        found.append((w @ w / 2, trace, mean @ mean - trace / batch))
        w = w - rate / (1 + noise**2 / (w @ w) / batch) * mean
    losses, traces, grad_sqs = np.array(found).T
    return Rounds(traces, grad_sqs, np.full(rounds, float(batch)), np.zeros(rounds, int)), losses


def expected_steps(loss, batch, rate=0.02, noise=3.0):
    """The same in expectation: |w|^2 falls by ``rate (2 - rate) / (1 + N / B)`` of itself in every step."""
    square, steps = 1.0, 0
    while square / 2 > loss:
        square *= 1 - rate * (2 - rate) / (1 + noise**2 / square / batch)
        steps += 1
    return steps


@pytest.mark.parametrize("batch, clients", [(16, 16), (64, 8)])
def test_a_noisy_quadratic_whose_steps_are_known(batch, clients):
    found = []
    for seed in range(6):
        rounds, losses = isotropic(batch, clients, 800, seed)
        (goal,) = to_losses(rounds, loss_curve(np.arange(800), losses), [0.1])
        found.append([goal.at(other).steps for other in (8, 16, 64, 256, 4096)])
    expected = [expected_steps(0.1, other) for other in (8, 16, 64, 256, 4096)]
    assert np.mean(found, axis=0) == pytest.approx(expected, rel=0.1)


def test_interval_of_infinite_values():
    assert interval(np.r_[np.arange(90.0), np.full(10, np.inf)]) == (5.0, np.inf)
