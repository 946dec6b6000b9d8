"""A noisy quadratic, whose steps to a goal can be computed: what checks the measurement of critical batch sizes.

    python -m simulations.quadratic             S_min, E_min and B_crit as they are, half a minute

L(w) = sum_i h_i w_i^2 / 2 and gradients h_i w_i + s z_i / sqrt(B) with z normal; SGD with momentum. The second moments
of w_i and its velocity obey a linear recursion exactly.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from fedbatch.batch.critical import fit_critical_batch_size
from fedbatch.batch.loss_curve import loss_curve
from fedbatch.batch.noiseless import Rounds
from simulations.critical_runs import Length, Run
from simulations.critical_tasks import Task

Floats = npt.NDArray[np.float64]
DIMENSIONS, NOISE = 500, 1.0
CURVATURES = np.geomspace(1.0, 0.02, DIMENSIONS)
START = CURVATURES**-0.5  # every direction has the same share of the loss
START_LOSS = 0.5 * DIMENSIONS
LARGEST = 1e6
"""A run whose loss grows by so much has diverged."""
MOMENTUM = {"momentum": 0.9, "SGD": 0.0}
GOALS = (0.1, 0.03)


def task(optimizer: str) -> Task:
    """The batches and the first rate, by the name of the optimizer."""
    rate = 0.2 if optimizer == "momentum" else 1.0
    return Task("noisy quadratic", "artificial noise", optimizer, (), 10**12, (4, 16, 64, 256, 1024), rate)


def launched(momentum: float, batch: int, rate: float, seed: int, length: Length) -> Run | None:
    """One run, whose loss is read after every step; None if it diverged."""
    rng, w, velocity = np.random.default_rng([seed, 20]), START, np.zeros(DIMENSIONS)
    losses, grad_sqs, trace = [1.0], [], DIMENSIONS * NOISE**2
    for _ in range(length.rounds):
        gradient = CURVATURES * w + NOISE * rng.standard_normal(DIMENSIONS) / math.sqrt(batch)
        grad_sqs.append(float(gradient @ gradient) - trace / batch)
        velocity = momentum * velocity + gradient
        w = w - rate * velocity
        losses.append(_loss(w**2))
        if not losses[-1] < LARGEST:
            return None
    each, curve = np.ones(length.rounds), loss_curve(np.arange(len(losses)), losses)
    return Run(Rounds(trace * each, np.array(grad_sqs), batch * each, np.zeros(len(each), np.int64)), curve)


def exact_steps(batch: float, goal: float, momentum: float) -> float:
    """Least expected number of steps to ``goal`` over all constant learning rates."""

    def cost(log_rate: float) -> float:
        return _expected_steps(batch, math.exp(log_rate), goal, momentum)

    grid = np.linspace(math.log(1e-4), math.log(1.999), 40)
    costs = [cost(x) for x in grid]
    i = int(np.nanargmin(costs))
    bounds = grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)]
    best = minimize_scalar(lambda x: value if (value := cost(x)) == value else 1e9, bounds=bounds, method="bounded")
    return float(best.fun)


def _expected_steps(batch: float, rate: float, goal: float, momentum: float) -> float:
    """Steps to an expected loss, interpolated in its logarithm; NaN if it is not reached."""
    squares, products, velocities, before = START**2, np.zeros(DIMENSIONS), np.zeros(DIMENSIONS), 1.0
    for step in range(1, int(300 * (1 + 200 / batch))):
        moved = momentum * products + CURVATURES * squares  # of w and the new velocity
        velocities = momentum**2 * velocities + CURVATURES * (momentum * products + moved) + NOISE**2 / batch
        squares = squares - 2 * rate * moved + rate**2 * velocities
        products = moved - rate * velocities
        loss = _loss(squares)
        if not loss < LARGEST:
            break
        if loss <= goal:
            return step - 1 + math.log(before / goal) / math.log(before / loss)
        before = loss
    return math.nan


def _loss(squares: Floats) -> float:
    return 0.5 * float(CURVATURES @ squares) / START_LOSS


if __name__ == "__main__":
    for name, momentum in MOMENTUM.items():
        batches = task(name).batches
        for goal in GOALS:
            exact = fit_critical_batch_size(batches, [exact_steps(batch, goal, momentum) for batch in batches])
            print(f"{name}, goal {goal:g}: S_min {exact.s_min:.2f}, E_min {exact.e_min:.1f}, B_crit {exact.b_crit:.1f}")
