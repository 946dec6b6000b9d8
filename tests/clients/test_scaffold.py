"""SCAFFOLD against thirty lines of NumPy, where FedAvg stalls."""

import numpy as np
import pytest

from fedbatch.clients import LocalSGD, Scaffold
from fedbatch.executors import vmap
from fedbatch.executors.loop import loop
from tests.clients.quadratic import SIZE, Quadratic

LR, STEPS = 0.2, 5
COHORTS = [[0, 2], [1, 3], [0, 1], [2, 3], [0, 3]] * 60


def scaffold(problem, cohorts):
    """Algorithm 1 of Karimireddy et al. (2020), option II, with a server rate of 1, as printed."""
    x, c = np.zeros(SIZE), np.zeros(SIZE)
    controls = np.zeros((len(problem.clients), SIZE))
    points = []
    for cohort in cohorts:
        changes, control_changes = [], []
        for i in cohort:
            y = x.copy()
            for _ in range(STEPS):
                y = y - LR * (problem.gradient(i, y) - controls[i] + c)
            new = controls[i] - c + (x - y) / (STEPS * LR)
            changes.append(y - x)
            control_changes.append(new - controls[i])
            controls[i] = new
        x = x + np.mean(changes, axis=0)
        c = c + len(cohort) / len(problem.clients) * np.mean(control_changes, axis=0)
        points.append(x)
    return np.array(points)


@pytest.mark.parametrize("executor", [loop, vmap.best])
def test_it_is_the_published_algorithm_to_the_last_digits(executor):
    problem = Quadratic()
    got = problem.run(Scaffold(LR, epochs=None, steps=STEPS), COHORTS, executor)
    np.testing.assert_allclose(got, scaffold(problem, COHORTS), rtol=1e-10, atol=1e-10)


def test_it_finds_the_minimum_where_local_sgd_stalls_beside_it():
    problem = Quadratic()
    everyone = [[0, 1, 2, 3]] * 400
    best = problem.minimum()
    stalled = problem.run(LocalSGD(LR, epochs=None, steps=STEPS), everyone)
    found = problem.run(Scaffold(LR, epochs=None, steps=STEPS), everyone)
    assert np.linalg.norm(found[-1] - best) < 1e-6 < 1e-2 < np.linalg.norm(stalled[-1] - best)
    np.testing.assert_allclose(stalled[-1], stalled[-2], atol=1e-9)  # it has converged, to another point


def test_with_one_step_and_everybody_it_is_local_sgd():
    problem, everyone = Quadratic(), [[0, 1, 2, 3]] * 20
    plain = problem.run(LocalSGD(LR, epochs=None, steps=1), everyone)
    np.testing.assert_allclose(problem.run(Scaffold(LR, epochs=None, steps=1), everyone), plain, atol=1e-12)
