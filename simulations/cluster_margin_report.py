"""Tables and figure of cluster_margin.py, from its rows alone."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from simulations.active_learning_report import COLORS, labels_for
from simulations.tables import above, interval, spread, table, verdict

WIDE, TIGHT = "cluster_margin", "cluster_margin, tight"
PAPER = 0.71
"""Labels over those of the next best, at the smaller of the paper's two query batches."""
Floats = npt.NDArray[np.float64]
Triple = tuple[float, float, float]


def goal(cell: pl.DataFrame) -> float:
    """Accuracy in percent that random selection ends at with its worst seed, so that it gets there with every seed."""
    ends = cell.filter((pl.col("selector") == "random") & (pl.col("stage") == cell["stage"].max()))
    return 100 * float(ends["test_accuracy"].to_numpy().min())


def needed(cell: pl.DataFrame) -> dict[str, Floats]:
    """Labels for the `goal` of a pool and query batch by selector, a number a seed; infinite if it is not reached."""
    wanted, found = goal(cell), dict[str, Floats]()
    for (selector,), own in cell.group_by("selector", maintain_order=True):
        labels = [labels_for(run, wanted) for _, run in own.sort("seed").group_by("seed", maintain_order=True)]
        found[str(selector)] = np.nan_to_num(np.array(labels), nan=np.inf)
    return found


def next_best(found: dict[str, Floats]) -> str:
    """Of the selectors without clusters the one with the fewest labels, by their geometric mean over seeds."""
    others = [name for name in found if name not in (WIDE, TIGHT)]
    return min(others, key=lambda name: float(np.log(found[name]).mean()))


def share(found: dict[str, Floats], name: str) -> Triple:
    """Labels of a selector over those of the next best: geometric mean, paired by seed, and its 90 % interval.

    Infinite, without a bound, where a seed did not reach the goal.
    """
    ratios = found[name] / found[next_best(found)]
    if not np.isfinite(ratios).all():
        return math.inf, 0.0, math.inf
    mean, low, high = (math.exp(bound) for bound in interval(np.log(ratios)))
    return mean, low, high


def fewest_from(shares: dict[int, Triple]) -> int | None:
    """The smallest query batch from which on every larger one needs fewer labels than the next best, interval and all.

    >>> fewest_from({20: (0.9, 0.8, 0.95), 100: (1.0, 0.9, 1.1), 500: (0.7, 0.6, 0.8)})
    500
    """
    found = None
    for batch in sorted(shares, reverse=True):
        if not shares[batch][2] < 1:
            break
        found = batch
    return found


def markdown(rows: pl.DataFrame) -> str:
    """Answers, labels beside the next best, labels of all, and how runs ended."""
    done = rows.filter(pl.col("status") == "finished")
    answers, lines, labels, ends = [], [], [], []
    for (copies,), pool in done.group_by("redundancy", maintain_order=True):
        shares: dict[str, dict[int, Triple]] = {name: {} for name in (WIDE, TIGHT) if name in set(pool["selector"])}
        for (batch,), cell in pool.group_by("batch", maintain_order=True):
            found = needed(cell)
            about = [str(copies), _batch(cell)]
            for name, known in shares.items():
                known[int(str(batch))] = share(found, name)
            best = next_best(found)
            told = [_shown(known[int(str(batch))]) for known in shares.values()]
            lines.append([*about, f"{goal(cell):.1f}", best, _mean(found[best]), *told])
            labels.append([*about, *(_mean(found[name]) for name in _selectors(rows))])
            last = cell.filter(pl.col("stage") == cell["stage"].max())
            by = [last.filter(pl.col("selector") == name)["test_accuracy"] * 100 for name in _selectors(rows)]
            ends.append([*about, str(last["labels_used"].max()), *(spread(values, ".1f") for values in by)])
        answers += [_answer(str(copies), name, known) for name, known in shares.items()]
    heads = ["copies", "query batch (of the pool)"]
    ratios = [f"{name} / next best" for name in (WIDE, TIGHT) if name in _selectors(rows)]
    text = "\n".join(["Fewest labels, at the largest query batch:", "", *(f"- {answer}" for answer in answers), ""])
    text += f"\n{table([*heads, 'goal, %', 'next best', 'its labels', *ratios], lines)}"
    text += f"\nLabels for the goal, geometric mean over seeds:\n\n{table([*heads, *_selectors(rows)], labels)}"
    text += f"\nAccuracy at the end, %:\n\n{table([*heads, 'labels', *_selectors(rows)], ends)}"
    failed = rows.height - done.height
    return f"{text}\nSeeds: {done['seed'].n_unique()}. Runs that failed: {failed}.\n"


def _answer(copies: str, name: str, shares: dict[int, Triple]) -> str:
    """Of one pool: at the largest query batch, and from which query batch on."""
    fewest, paper = (below(shares[max(shares)], limit) for limit in (1.0, PAPER))
    start = fewest_from(shares)
    since = "from no query batch on" if start is None else f"from a query batch of {start:,} on"
    how = f"at most {PAPER:.0%} of the next best: {verdict(paper)}"
    return f"{name}, {copies} {'copy' if copies == '1' else 'copies'}: {verdict(fewest)} ({since}); {how}"


def below(found: Triple, limit: float) -> bool | None:
    """Whether a ratio is below a limit, by its interval; it is not where the goal was not reached."""
    if not math.isfinite(found[0]):
        return False
    over = above(found, limit)
    return None if over is None else not over


def _selectors(rows: pl.DataFrame) -> list[str]:
    return [str(name) for name in rows["selector"].unique(maintain_order=True)]


def _batch(cell: pl.DataFrame) -> str:
    return f"{cell['batch'][0]:,} ({cell['batch'][0] / cell['pool'][0]:.1%})"


def _mean(labels: Floats) -> str:
    reached = labels[np.isfinite(labels)]
    if len(reached) < len(labels):
        return f"not reached by {len(labels) - len(reached)} of {len(labels)}"
    return f"{math.exp(float(np.log(labels).mean())):,.0f}"


def _shown(found: Triple) -> str:
    mean, low, high = found
    if not math.isfinite(mean):
        return "not reached"
    return f"{mean:.2f} ({low:.2f} to {high:.2f})" if math.isfinite(high) else f"{mean:.2f}"


def save_figure(rows: pl.DataFrame, path: Path) -> None:
    """Above, labels over those of random selection by query batch; below, Cluster-Margin's over the next best's."""
    done = rows.filter(pl.col("status") == "finished")
    pools = done["redundancy"].unique(maintain_order=True).to_list()
    figure = Figure(figsize=(5.2 * len(pools), 6.4), layout="constrained")
    panels = figure.subplots(2, len(pools), squeeze=False, sharex=True, sharey="row")
    for column, copies in zip(panels.T, pools, strict=True):
        pool = done.filter(pl.col("redundancy") == copies)
        found = {int(str(batch)): needed(cell) for (batch,), cell in pool.group_by("batch", maintain_order=True)}
        for name in _selectors(rows):
            _all(column[0], name, found)
        for name in (WIDE, TIGHT):
            _beside(column[1], name, {batch: share(own, name) for batch, own in found.items() if name in own})
        column[0].set_title(f"{copies} copies of each image" if copies > 1 else "each image once", fontsize=10)
        for axes in column:
            axes.axhline(1, color="black", lw=0.8)
            axes.set(xscale="log", yscale="log")
            axes.set_xticks(sorted(found), [f"{batch:,}" for batch in sorted(found)])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_minor_locator(NullLocator())
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25)
        column[0].set_yticks(shares := [0.4, 0.5, 0.6, 0.7, 0.8, 1.0], [f"{value:g}" for value in shares])
        column[1].set_yticks(shares := [0.5, 0.7, 1.0, 1.4, 2.0], [f"{value:g}" for value in shares])
        column[1].axhline(PAPER, color="black", lw=0.8, ls=":")
        column[1].set_xlabel("labels a query")
    panels[0, 0].set_ylabel("labels / those of random selection")
    panels[1, 0].set_ylabel("labels / next best's, 90 %")
    panels[0, 0].legend(frameon=False, fontsize=8)
    panels[1, 0].legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path, dpi=120)


def _all(axes: Axes, name: str, found: dict[int, dict[str, Floats]]) -> None:
    """Geometric means over seeds of the labels over those of random selection."""
    batches = [batch for batch in sorted(found) if np.isfinite(found[batch].get(name, np.inf)).all()]
    means = [math.exp(float(np.log(found[batch][name] / found[batch]["random"]).mean())) for batch in batches]
    axes.plot(batches, means, "o-", color=COLORS[name], ms=4, lw=2.2 if name == WIDE else 1.3, label=name)


def _beside(axes: Axes, name: str, shares: dict[int, Triple]) -> None:
    """Ratios with their intervals; the two settings stand side by side."""
    told = {batch * (0.94 if name == WIDE else 1.06): own for batch, own in shares.items() if math.isfinite(own[0])}
    bars = np.array([[mean - low, min(high, 10 * mean) - mean] for mean, low, high in told.values()]).reshape(-1, 2).T
    axes.errorbar(list(told), [mean for mean, _, _ in told.values()], bars, fmt="o", color=COLORS[name], label=name)
