"""FedDyn against NumPy, and that it finds the minimum where FedAvg stalls."""

import numpy as np
import pytest

from fedbatch.clients import FedDyn
from fedbatch.executors import vmap
from fedbatch.executors.loop import loop
from tests.clients.quadratic import SIZE, Quadratic

LR, STEPS, ALPHA = 0.2, 5, 0.3
COHORTS = [[0, 2], [1, 3], [0, 1], [2, 3], [0, 3]] * 10


def feddyn(problem, cohorts):
    """Algorithm 1 of Acar et al. (2021), its inner problem by steps of gradient descent."""
    theta, h = np.zeros(SIZE), np.zeros(SIZE)
    gradients = np.zeros((len(problem.clients), SIZE))
    points = []
    for cohort in cohorts:
        ends = {}
        for k in cohort:
            w = theta.copy()
            for _ in range(STEPS):
                w = w - LR * (problem.gradient(k, w) - gradients[k] + ALPHA * (w - theta))
            gradients[k] = gradients[k] - ALPHA * (w - theta)
            ends[k] = w
        h = h - ALPHA / len(problem.clients) * sum(w - theta for w in ends.values())
        theta = np.mean(list(ends.values()), axis=0) - h / ALPHA
        points.append(theta)
    return np.array(points)


@pytest.mark.parametrize("executor", [loop, vmap.best])
def test_it_is_the_published_algorithm(executor):
    problem = Quadratic()
    got = problem.run(FedDyn(LR, epochs=None, steps=STEPS, alpha=ALPHA), COHORTS, executor)
    np.testing.assert_allclose(got, feddyn(problem, COHORTS), rtol=1e-10, atol=1e-10)


def test_it_finds_the_minimum():
    problem = Quadratic()
    found = problem.run(FedDyn(LR, epochs=None, steps=STEPS, alpha=ALPHA), [[0, 1, 2, 3]] * 150, vmap.best)
    np.testing.assert_allclose(found[-1], problem.minimum(), atol=1e-6)


def test_a_second_quadratic_term_is_refused():
    with pytest.raises(ValueError, match="client_work: alpha must be > 0, and proximal 0"):
        FedDyn(LR, proximal=0.1)
