"""FedNova's fixed point: that of the weighted loss, however unequal the numbers of local steps."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from fedbatch.clients import FedNova, LocalSGD
from fedbatch.clients.draw import Draw
from fedbatch.executors import vmap
from fedbatch.executors.loop import loop
from tests.clients.quadratic import SIZE, Quadratic

EVERYONE = [[0, 1, 2, 3]]
TAKEN = np.array([1, 2, 5, 12])


def unequal(kind):
    """The work with ``TAKEN`` steps on whole batches."""

    @dataclass(frozen=True)
    class Unequal(kind):
        def draw(self, *arguments):
            drawn = super().draw(*arguments)
            kept = np.arange(drawn.counts.shape[1]) < TAKEN[:, None]
            return Draw(drawn.positions, np.where(kept, drawn.counts, 0))

    return Unequal(0.01, None, int(TAKEN.max()))


def by_hand(problem, rounds, proximal=0.0):
    """Wang et al. (2020), eq. 6 to 8, for SGD with a proximal term: a by its recursion, tau_eff = mean of |a|_1."""
    w = np.zeros(SIZE)
    for _ in range(rounds):
        directions, sizes = [], []
        for k, steps in enumerate(TAKEN):
            v, a = w.copy(), 0.0
            for _ in range(steps):
                v = v - 0.01 * (problem.gradient(k, v) + proximal * (v - w))
                a = a * (1 - 0.01 * proximal) + 1
            directions.append((w - v) / 0.01 / a)
            sizes.append(a)
        w = w - 0.01 * np.mean(sizes) * np.mean(directions, axis=0)
    return w


@pytest.mark.parametrize("executor", [loop, vmap.best])
@pytest.mark.parametrize("proximal", [0.0, 2.0])
def test_it_is_the_published_algorithm(executor, proximal):
    problem, work = Quadratic(), replace(unequal(FedNova), proximal=proximal)
    got = problem.run(work, EVERYONE * 8, executor)
    np.testing.assert_allclose(got[-1], by_hand(problem, 8, proximal), rtol=1e-10)


def test_its_fixed_point_is_the_minimum_and_that_of_local_sgd_is_not():
    """Small steps, so that what is left is the unequal say of clients and not their drift."""
    problem, best = Quadratic(), Quadratic().minimum()
    nova, plain = (problem.run(unequal(kind), EVERYONE * 150, vmap.best)[-1] for kind in (FedNova, LocalSGD))
    drift = np.linalg.norm(nova - best)
    assert drift < 0.06 * np.linalg.norm(best) and np.linalg.norm(plain - best) > 5 * drift


def test_with_equal_steps_it_is_local_sgd():
    problem, arguments = Quadratic(), {"lr": 0.1, "epochs": None, "steps": 4}
    nova, plain = (problem.run(kind(**arguments), EVERYONE * 10) for kind in (FedNova, LocalSGD))
    np.testing.assert_allclose(nova, plain, rtol=1e-12, atol=1e-12)
