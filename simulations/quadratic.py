"""A noisy quadratic, whose steps to a goal can be computed: what checks the measurement of critical batch sizes.

    python -m simulations.quadratic             S_min, E_min and B_crit as they are, a quarter of a minute

L(w) = sum_i h_i w_i^2 / 2 and gradients h_i w_i + s_i z_i / sqrt(B) with z normal. E[w_i^2] obeys
m <- (1 - lr h_i)^2 m + lr^2 s_i^2 / B exactly.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from fedbatch.batch.critical import fit_critical_batch_size
from simulations.goals import Curve, steps_to

Floats = npt.NDArray[np.float64]
DIMENSIONS, NOISE = 2000, 1.0
CURVATURES = np.geomspace(1.0, 0.02, DIMENSIONS)
BATCHES, GOALS, START_RATE = (4, 16, 64, 256, 1024), (0.1, 0.03), 0.05
START = CURVATURES**-0.5  # every direction has the same share of the loss
START_LOSS = 0.5 * DIMENSIONS


def trajectory(batch: float, rate: float, steps: int, seed: int) -> Curve | None:
    """One run, with the exact noise of every step; None if it diverged."""
    rng, w = np.random.default_rng([seed, 20]), START
    losses, grad_sqs = [1.0], []
    for _ in range(steps):
        gradient = CURVATURES * w
        grad_sqs.append(float(gradient @ gradient))
        w = w - rate * (gradient + NOISE * rng.standard_normal(DIMENSIONS) / math.sqrt(batch))
        losses.append(_loss(w**2))
        if not losses[-1] < 1e6:
            return None
    return Curve(np.arange(steps + 1.0), np.array(losses), np.full(steps, DIMENSIONS * NOISE**2), np.array(grad_sqs))


def most_steps(batch: float) -> int:
    """After so many a run is given up."""
    return int(800 * (1 + 100 / batch))


def exact_steps(batch: float, goal: float) -> float:
    """Least expected number of steps to ``goal`` over all constant learning rates."""

    def cost(log_rate: float) -> float:
        return _expected_steps(batch, math.exp(log_rate), goal)

    grid = np.linspace(math.log(1e-4), math.log(1.999), 80)
    costs = [cost(x) for x in grid]
    i = int(np.nanargmin(costs))
    bounds = grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)]
    best = minimize_scalar(lambda x: value if (value := cost(x)) == value else 1e9, bounds=bounds, method="bounded")
    return float(best.fun)


def _expected_steps(batch: float, rate: float, goal: float) -> float:
    squares, losses = START**2, [1.0]
    keep, added = (1 - rate * CURVATURES) ** 2, rate**2 * NOISE**2 / batch
    for _ in range(most_steps(batch)):
        squares = keep * squares + added
        losses.append(_loss(squares))
        if losses[-1] < 0.9 * goal:
            break
    nothing = np.zeros(0)
    return steps_to(goal, Curve(np.arange(len(losses), dtype=float), np.array(losses), nothing, nothing))


def _loss(squares: Floats) -> float:
    return 0.5 * float(CURVATURES @ squares) / START_LOSS


if __name__ == "__main__":
    for goal in GOALS:
        exact = fit_critical_batch_size(BATCHES, [exact_steps(batch, goal) for batch in BATCHES])
        print(f"goal {goal:g}: S_min {exact.s_min:.2f}, E_min {exact.e_min:.1f}, B_crit {exact.b_crit:.1f}")
