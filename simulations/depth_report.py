"""Table and figure of depth.py, from its rows alone."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.figure import Figure

from fedbatch.batch.critical import fit_critical_batch_size
from simulations.tables import above, interval, spread, table, verdict
from simulations.width import largest_batch

COLORS = {"plain": "#0072B2", "residual": "#D55E00"}
Floats = npt.NDArray[np.float64]
MEASURES = {
    "largest": "largest batch within 1.2 x the examples",
    "b_crit": "B_crit, search",
    "told": "B_crit, one run",
    "noise": "noise scale at the goal",
}
"""Columns of `by_seed`, in examples."""


def by_seed(rows: pl.DataFrame) -> pl.DataFrame:
    """A row for each network and seed with every one of `MEASURES`; NaN where a batch did not arrive."""
    found = []
    for key, cell in rows.filter(~pl.col("tuning")).group_by("family", "depth", "width", "seed", maintain_order=True):
        own = cell.sort("batch")
        batches, steps = own["batch"].to_numpy(), own["steps"].to_numpy()
        row = dict(zip(("family", "depth", "width", "seed"), key, strict=True))
        row["largest"] = largest_batch(batches.tolist(), (batches * steps).tolist())
        arrived = np.isfinite(steps)
        # Without replacement the noise of a batch is tr(Sigma) (1/B - 1/N).
        sizes = 1 / (1 / batches[arrived] - 1 / own["examples"].to_numpy()[arrived])
        row["b_crit"] = fit_critical_batch_size(sizes, steps[arrived]).b_crit if arrived.sum() > 2 else math.nan
        row |= {"told": own["told"][0], "noise": own["b_noise"][0]}  # of the smallest batch
        found.append(row)
    return pl.DataFrame(found, infer_schema_length=None)


def with_first(found: pl.DataFrame, family: str) -> pl.DataFrame:
    """Networks of a family; with one hidden layer, where all families are one, those of the plain one."""
    return found.filter((pl.col("family") == family) | (pl.col("depth") == 1))


def slopes(found: pl.DataFrame, name: str) -> Floats:
    """By seed: the slope of the logarithm of a measure over that of depth."""
    logs = []
    for _, own in found.filter(pl.col(name).is_finite() & (pl.col(name) > 0)).group_by("seed", maintain_order=True):
        if own["depth"].n_unique() > 1:
            logs.append(np.polyfit(np.log(own["depth"].to_numpy()), np.log(own[name].to_numpy()), 1)[0])
    return np.array(logs)


def explained(found: pl.DataFrame, name: str) -> float:
    """Squared correlation, over networks, of the logarithms of B_crit by search and of a measure; means over seeds."""
    logs = found.group_by("family", "depth").agg(pl.col("b_crit", name).log().mean()).drop_nans()
    if logs.height < 3:
        return math.nan
    return float(np.corrcoef(logs["b_crit"], logs[name])[0, 1] ** 2)


def markdown(rows: pl.DataFrame) -> str:
    """The verdict, the slopes over depth, and every network."""
    found = by_seed(rows)
    lines, claims = [], {}
    for family in COLORS:
        own = with_first(found, family)
        for name, title in MEASURES.items():
            bounds = interval(slopes(own, name))
            claims[family, name] = _negated(above(bounds, 0.0))
            lines.append([family, title, f"{bounds[0]:.2f} ({bounds[1]:.2f} to {bounds[2]:.2f})"])
    answers = [
        f"{family}, by {title}: {verdict(claims[family, name])}"
        for family in COLORS
        for name, title in MEASURES.items()
    ]
    shares = ", ".join(f"{title} {explained(found, name):.2f}" for name, title in MEASURES.items() if name != "b_crit")
    told = "That deeper networks of equal size take smaller batches:"
    start = "\n".join([told, "", *(f"- {answer}" for answer in answers), ""])
    start += f"\nr^2 with B_crit by search over networks (logarithms): {shares}.\n\n"
    start += table(["family", "measure", "slope over depth, log-log (90 % over seeds)"], lines)
    return f"{start}\n{_networks(rows, found)}"


def _negated(claim: bool | None) -> bool | None:
    return None if claim is None else not claim


def _networks(rows: pl.DataFrame, found: pl.DataFrame) -> str:
    lines = []
    for (family, depth, width), own in found.group_by("family", "depth", "width", maintain_order=True):
        cell = rows.filter(~pl.col("tuning") & (pl.col("family") == family) & (pl.col("depth") == depth))
        steps = [spread(at["steps"], ".3g") for _, at in cell.sort("batch").group_by("batch", maintain_order=True)]
        lines.append([str(family), str(depth), str(width), *steps, *(spread(own[name], ".3g") for name in MEASURES)])
    batches = [f"steps at {batch}" for batch in sorted(rows["batch"].unique())]
    return table(["family", "hidden layers", "width", *batches, *MEASURES.values()], lines)


def save_figure(rows: pl.DataFrame, path: Path) -> None:
    """Each measure over depth, by family, with dots for seeds."""
    found = by_seed(rows)
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    panels = figure.subplots(1, len(MEASURES), sharey=True)
    for axes, (name, title) in zip(panels, MEASURES.items(), strict=True):
        for family, color in COLORS.items():
            own = with_first(found, family).filter(pl.col(name).is_finite())
            means = own.group_by("depth").agg(pl.col(name).log().mean().exp()).sort("depth")
            axes.plot(means["depth"], means[name], "-", color=color, label=family)
            axes.plot(own["depth"], own[name], "o", color=color, ms=4, alpha=0.6)
        axes.set(xscale="log", yscale="log", xlabel="hidden layers")
        axes.set_xticks(depths := sorted(found["depth"].unique()), [str(depth) for depth in depths])
        axes.minorticks_off()
        axes.set_yticks([10, 20, 50, 100], ["10", "20", "50", "100"])
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    panels[0].set(ylabel="examples")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)
