"""Tables of switching.py, from its rows alone."""

import math

import numpy as np
import polars as pl

from simulations.switching_contenders import FIXED
from simulations.switching_costs import AXES
from simulations.tables import spread, table

FRONT = ("rounds", "examples")  # time and compute
SHARES = (0.25, 0.5)  # of the rounds of the large batch, at which accuracies are kept too
SETTING = ("model", "partition", "optimizer")
RESAMPLES = 2000
INTRODUCTION = """Test accuracy %, mean and standard deviation over seeds, when each budget is spent. The worst gap is
against the fixed batch that the tuning seeds found best on each axis, with a 90 % interval; by chance: what an equal
would lose. The worst cost ratio is the cost to the target over that of the axis's cheapest fixed batch, on the axis
where it is greatest.
"""


def markdown(rows: pl.DataFrame) -> str:
    """Accuracy of every contender when each budget is spent, and what is lost to the best fixed batch of each axis."""
    parts = []
    for setting, cell in rows.group_by(*SETTING, maintain_order=True):
        own = cell.filter(~pl.col("for_tuning"))
        lines, axes = [], [axis for axis in AXES if axis in own["axis"]]
        for name in _names(own):
            of = own.filter(pl.col("controller") == name)
            values = [spread(100 * of.filter(pl.col("axis") == axis)["test_accuracy"], ".1f") for axis in axes]
            last = 100 * np.nanmean(of["last_test_accuracy"].to_numpy())
            lines.append([name, f"{of['rate'][0]:.2g}", *values, f"{last:.1f}", *loss_of(cell, name)])
        spent = [f"{axis} ({float(own.filter(pl.col('axis') == axis)['budget'][0]):,.4g})" for axis in axes]
        heads = ["", "rate", *spent, "last iterate, mean", "worst gap, points", "by chance", "worst cost ratio"]
        title = ", ".join(map(str, setting))
        title = f"### {title}: {own['seed'].n_unique()} seed(s), costs to {100 * float(own['target'][0]):g} %"
        parts.append(f"{title}\n\n{table(heads, lines)}")
    return "\n".join([INTRODUCTION, *parts, equal_rounds(rows)])


def _names(rows: pl.DataFrame) -> list[str]:
    return [str(name) for name in rows["controller"].unique(maintain_order=True)]


def loss_of(cell: pl.DataFrame, name: str) -> tuple[str, str, str]:
    """Worst gap with its interval, the same of an equal, and the worst cost ratio."""
    gaps, ratios = gaps_of(cell, name), ratios_of(cell, name)
    if not np.isfinite(gaps).all():
        return "failed", "-", _ratio(ratios)
    worst, low, high, _ = worst_gap(gaps)
    *_, by_chance = worst_gap(gaps - gaps.mean(axis=0))
    return f"{worst:+.1f} ({low:+.1f} to {high:+.1f})", f"{by_chance:+.1f}", _ratio(ratios)


def _ratio(ratios: np.ndarray) -> str:
    worst = float(np.exp(np.log(ratios).mean(axis=0)).max(initial=0))
    return f"{worst:.2f}" if math.isfinite(worst) else "not reached"


def worst_gap(gaps: np.ndarray) -> tuple[float, float, float, float]:
    """The least mean over seeds of gaps (seeds, axes), with bounds and mean of its bootstrap over seeds."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(gaps), size=(RESAMPLES, len(gaps)))
    again = np.sort(gaps[drawn].mean(axis=1).min(axis=1))
    out = RESAMPLES // 20
    return float(gaps.mean(axis=0).min()), float(again[out]), float(again[-1 - out]), float(again.mean())


def _matrix(cell: pl.DataFrame, name: str, column: str, for_tuning: bool = False) -> np.ndarray:
    """Values (seeds, axes) of a contender."""
    own = cell.filter((pl.col("controller") == name) & (pl.col("for_tuning") == for_tuning)).sort("seed")
    axes = [axis for axis in AXES if axis in own["axis"]]
    return np.stack([own.filter(pl.col("axis") == axis)[column].to_numpy() for axis in axes], axis=1)


def gaps_of(cell: pl.DataFrame, name: str) -> np.ndarray:
    """Points (seeds, axes) ahead of the fixed batch that is best on each axis by the seeds of the tuning."""
    fixed = [each for each in FIXED if each in cell["controller"]]
    best = np.nanargmax([_matrix(cell, each, "test_accuracy", True).mean(axis=0) for each in fixed], axis=0)
    against = np.stack([_matrix(cell, each, "test_accuracy") for each in fixed])
    return 100 * (_matrix(cell, name, "test_accuracy") - np.take_along_axis(against, best[None, None], axis=0)[0])


def ratios_of(cell: pl.DataFrame, name: str) -> np.ndarray:
    """Cost to the target (seeds, axes) over that of the axis's cheapest fixed batch; infinite where not reached."""
    fixed = [
        np.nan_to_num(_matrix(cell, each, "cost_to_target"), nan=np.inf) for each in FIXED if each in cell["controller"]
    ]
    cheapest = np.exp(np.min([np.log(each).mean(axis=0) for each in fixed], axis=0))
    return np.nan_to_num(_matrix(cell, name, "cost_to_target"), nan=np.inf) / cheapest


def equal_rounds(rows: pl.DataFrame) -> str:
    """Accuracy at equal rounds of the fixed batches and the ladder, early and at the end."""
    lines = []
    for setting, cell in rows.filter(~pl.col("for_tuning") & (pl.col("axis") == "rounds")).group_by(
        *SETTING, maintain_order=True
    ):
        total = cell["budget"][0]
        for share in (*SHARES, 1):
            column = f"at_{share:g}_of_rounds" if share < 1 else "test_accuracy"
            values = [100 * cell.filter(pl.col("controller") == name)[column] for name in (*FIXED, "ladder")]
            lines.append([", ".join(map(str, setting)), f"{share * total:.0f}", *(spread(v, ".1f") for v in values)])
    return f"### At equal rounds\n\n{table(['', 'rounds', *FIXED, 'ladder'], lines)}"
