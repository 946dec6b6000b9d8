"""When a run's loss on the training set reached a goal, and the noise scale there."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from simulations.study_runs import status

Floats = npt.NDArray[np.float64]
WINDOW = 0.25
"""Share of the rounds up to the goal over which the noise scale is averaged."""


@dataclass(frozen=True)
class Curve:
    """What a run says of its way to a goal.

    Attributes:
        rounds: (n,) numbers of steps after which the loss was evaluated, rising from 0 or more.
        losses: (n,) on examples of the training set that stay the same.
        traces, grad_sqs: (rounds,) unbiased estimates of tr(Sigma) and |G|^2 in every round.
    """

    rounds: Floats
    losses: Floats
    traces: Floats
    grad_sqs: Floats


def curve(folder: Path) -> Curve | None:
    """The curve of a run that finished, None of one that failed or diverged."""
    if status(folder) != "finished":
        return None
    rows = pl.read_parquet(folder / "rounds.parquet")
    told = rows.drop_nulls("training_set_loss")
    columns = told["rounds"], told["training_set_loss"], rows["round_trace"], rows["round_grad_sq"]
    return Curve(*(column.cast(pl.Float64).to_numpy() for column in columns))


def steps_to(goal: float, curve: Curve) -> float:
    """Steps to ``goal``, interpolated between evaluations of the logarithm of the loss; NaN if it is not reached.

    Three neighbouring evaluations are averaged first: the first of many noisy values below the goal comes too early.

    >>> steps_to(1.0, Curve(np.arange(5.0), np.array([4.0, 2.0, 1.0, 0.5, 0.25]), np.zeros(5), np.zeros(5)))
    2.0
    """
    logs = np.log(curve.losses)
    smooth = logs.copy()
    smooth[1:-1] = (logs[:-2] + logs[1:-1] + logs[2:]) / 3
    below = np.flatnonzero(smooth <= math.log(goal))
    if not len(below):
        return math.nan
    if below[0] == 0:
        return float(curve.rounds[0])
    i = below[0]
    share = (smooth[i - 1] - math.log(goal)) / (smooth[i - 1] - smooth[i])
    return float(curve.rounds[i - 1] + share * (curve.rounds[i] - curve.rounds[i - 1]))


def noise_scale_at(steps: float, curve: Curve, examples: float) -> float:
    """B_simple = tr(Sigma) / |G|^2 over the last quarter of ``steps`` rounds, by the ratio of the means."""
    end = max(math.ceil(steps), 1)
    return _noise_scale(curve, slice(int(end * (1 - WINDOW)), end), examples)


def noise_scale_at_start(steps: float, curve: Curve, examples: float) -> float:
    """The same over the first twentieth of ``steps`` rounds, four at least."""
    return _noise_scale(curve, slice(0, max(4, math.ceil(steps / 20))), examples)


def _noise_scale(curve: Curve, window: slice, examples: float) -> float:
    # Batches are drawn without replacement from ``examples``, so that estimates of |G|^2 lie tr(Sigma) / examples below
    # that of the whole training set, on which the goal is.
    trace, grad_sq = curve.traces[window].mean(), curve.grad_sqs[window].mean()
    grad_sq += trace / examples
    return float(trace / grad_sq) if grad_sq > 0 else math.nan
