"""Table and figure of cartpole.py, from its rows alone."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from simulations.steps_to_goal import fit
from simulations.tables import spread, table, verdict

FACTOR = 2.0
"""Within which a prediction counts."""
COLORS = ("#0072B2", "#D55E00", "#009E73")
Triple = tuple[float, float, float]


def ratio(found: dict[str, Any]) -> Triple:
    """Noise scale at the goal over the fitted B_crit, and its 90 % interval from those of both, in logarithms."""
    middle = math.log(found["b_noise"] / found["b_crit"])
    noise = 1.645 * found["b_noise_se"] / found["b_noise"]
    low = math.hypot(noise, math.log(found["b_crit_high"] / found["b_crit"]))
    high = math.hypot(noise, math.log(found["b_crit"] / found["b_crit_low"])) if found["b_crit_low"] > 0 else math.inf
    return math.exp(middle), math.exp(middle - low), math.exp(middle + high)


def within(found: Triple) -> bool | None:
    """Whether a ratio is within `FACTOR`, by its interval; None where the interval has the limit in it.

    >>> within((1.1, 0.8, 1.6)), within((3.0, 2.4, 4.0)), within((1.5, 0.9, 2.4)), within((0.6, 0.4, 0.9))
    (True, False, None, None)
    """
    _, low, high = found
    if low >= 1 / FACTOR and high <= FACTOR:
        return True
    return False if high < 1 / FACTOR or low > FACTOR else None


def markdown(rows: pl.DataFrame) -> str:
    """The verdict, the fit of each goal beside the noise scale, and steps by batch."""
    fits = fit(rows.to_dicts())
    answers = [within(ratio(found)) for found in fits]
    text = f"The noise scale at the goal tells B_crit within {FACTOR:g}, by goal: "
    text += "; ".join(f"{_steps(found['goal'])} {verdict(answer)}" for found, answer in zip(fits, answers, strict=True))
    lines = [
        [
            _steps(found["goal"]),
            f"{found['s_min']:.3g}",
            _shown((found["b_crit"], found["b_crit_low"], found["b_crit_high"])),
            f"{found['b_noise']:.3g}",
            _shown(ratio(found)),
        ]
        for found in fits
    ]
    heads = ["goal: steps of an episode", "S_min, updates", "B_crit, episodes", "noise scale there", "ratio"]
    text += f".\n\n{table(heads, lines)}"
    by_batch = [
        [
            _steps(goal),
            str(batch),
            f"{cell['rate'][0]:.2g}",
            spread(cell["steps"], ".3g"),
            f"{np.exp(cell['b_noise'].drop_nans().log().to_numpy().mean()):.3g}",
            str(cell["b_noise"].is_nan().sum()),
        ]
        for (goal, batch), cell in rows.group_by("goal", "batch", maintain_order=True)
    ]
    heads = ["goal", "batch", "rate", "updates", "noise scale there, of these runs", "runs without one"]
    return f"{text}\n{table(heads, by_batch)}\nLearners of each batch: {rows['seed'].n_unique()}.\n"


def _steps(goal: Any) -> str:
    return f"{201 - float(goal):g}"


def _shown(found: Triple) -> str:
    return f"{found[0]:.3g} ({found[1]:.3g} to {found[2]:.3g})"


def save_figure(rows: pl.DataFrame, path: Path) -> None:
    """Updates to each goal by batch with the fit, and B_crit beside the noise scale."""
    fits = fit(rows.to_dicts())
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    batches = sorted(rows["batch"].unique())
    smooth = np.geomspace(batches[0], batches[-1], 100)
    for found, color in zip(fits, COLORS, strict=False):
        own = rows.filter((pl.col("goal") == found["goal"]) & pl.col("steps").is_finite())
        label = f"{_steps(found['goal'])} steps an episode"
        left.plot(own["batch"], own["steps"], ".", color=color, alpha=0.25)
        left.plot(smooth, found["s_min"] + found["e_min"] / smooth, "-", color=color, label=label)
        noise = own.filter(pl.col("b_noise").is_not_nan()).group_by("batch").agg(pl.col("b_noise").log().mean().exp())
        noise = noise.sort("batch")
        right.plot(noise["batch"], noise["b_noise"], "o-", color=color, label=label)
        right.axhline(found["b_crit"], color=color, ls="--")
        right.axhspan(found["b_crit_low"], found["b_crit_high"], color=color, alpha=0.12, lw=0)
    left.set(xscale="log", yscale="log", xlabel="batch, episodes", ylabel="updates to the goal")
    right.set(xscale="log", yscale="log", xlabel="batch of the runs", ylabel="episodes")
    right.set_title("dots: noise scale at the goal; dashes: fitted B_crit, 90 %", fontsize=10)
    for axes in (left, right):
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_yticks(ticks := [5, 10, 20, 50, 100, 200], [str(tick) for tick in ticks])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    right.set_ylim(2.5, 60)
    left.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)
