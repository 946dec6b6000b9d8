import math

import numpy as np
import pytest


@pytest.fixture
def goals():
    from simulations import goals

    return goals


def exponential(goals, every, noise=0.0, rounds=200):
    """Loss exp(-0.02 t), evaluated every so many rounds."""
    t = np.arange(every, rounds + 1.0, every)
    losses = np.exp(-0.02 * t + noise * np.where(np.arange(len(t)) % 2, 1, -1))
    return goals.Curve(t, losses, np.full(rounds, 8.0), np.linspace(4.0, 0.0, rounds))


@pytest.mark.parametrize("every", [1, 7])
def test_steps_are_interpolated_between_evaluations(goals, every):
    assert goals.steps_to(math.exp(-2.5), exponential(goals, every)) == pytest.approx(125, abs=1e-6)


def test_one_lucky_evaluation_does_not_end_the_way(goals):
    curve = exponential(goals, every=5)
    curve.losses[3] *= 0.3
    below = curve.rounds[np.flatnonzero(curve.losses <= math.exp(-1.2))[0]]
    assert below == 20 and goals.steps_to(math.exp(-1.2), curve) > 50


def test_a_goal_that_is_not_reached_has_no_steps(goals):
    assert math.isnan(goals.steps_to(1e-9, exponential(goals, 1)))


def test_the_noise_scale_is_that_of_the_last_quarter_and_of_the_whole_training_set(goals):
    curve = exponential(goals, 1)
    window = curve.grad_sqs[75:100].mean()
    assert goals.noise_scale_at(100, curve, math.inf) == pytest.approx(8 / window)
    assert goals.noise_scale_at(99.2, curve, 40) == pytest.approx(8 / (window + 8 / 40))


def test_the_noise_scale_at_the_start_is_that_of_a_twentieth_but_of_four_rounds_at_least(goals):
    curve = exponential(goals, 1)
    assert goals.noise_scale_at_start(100, curve, math.inf) == pytest.approx(8 / curve.grad_sqs[:5].mean())
    assert goals.noise_scale_at_start(20, curve, math.inf) == pytest.approx(8 / curve.grad_sqs[:4].mean())


def test_no_gradient_no_noise_scale(goals):
    curve = goals.Curve(np.arange(4.0), np.ones(4), np.ones(4), np.full(4, -1.0))
    assert math.isnan(goals.noise_scale_at(4, curve, math.inf))
