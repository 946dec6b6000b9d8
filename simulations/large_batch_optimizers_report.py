"""Tables and figure of large_batch_optimizers.py, from its rows alone."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from simulations.tables import above, interval, spread, table, verdict

CLOSE = 1.01
"""A batch keeps the small batch's loss when its own is at most this many times as large."""
CLAIMED = 6000 / 480
"""By how much the batch of GPT-2 Medium grew at no loss in Luo et al. 2025."""
ORDER = ("MERIT", "LAMB", "AdamW")
"""At large batches the best first, as claimed."""
COLORS = {"AdamW": "#000000", "LAMB": "#0072B2", "MERIT": "#D55E00"}
CHANGED = {"MERIT, l2 norm": "#CC79A7", "MERIT, weight-wise": "#E69F00", "AdamW, beta2 0.99": "#999999"}
Floats = npt.NDArray[np.float64]
Triple = tuple[float, float, float]


def losses(rows: pl.DataFrame, name: str) -> tuple[Floats, Floats]:
    """Batches (B,), and the losses of reported seeds (seeds, B), infinite where a run failed."""
    own = rows.filter(~pl.col("tuning") & (pl.col("optimizer") == name)).sort("seed", "batch")
    batches = own["batch"].unique().sort().cast(pl.Float64).to_numpy()
    values = own["loss"].fill_nan(math.inf).to_numpy().reshape(-1, len(batches))
    return batches, values


def largest_within(batches: Floats, values: Floats, bar: float) -> float:
    """The largest batch (B,) whose loss (B,) is at most ``bar``, interpolated on the batch's logarithm.

    NaN where no batch keeps it. Where the largest does, it is the answer, and the truth may lie beyond.

    >>> float(largest_within(np.array([1.0, 4.0, 16.0]), np.array([2.0, 2.0, 4.0]), 3.0))
    8.0
    """
    within = np.flatnonzero(values <= bar)
    if not len(within):
        return math.nan
    last = within[-1]
    if last + 1 == len(batches):
        return float(batches[-1])
    share = (bar - values[last]) / (values[last + 1] - values[last])
    return float(batches[last] * (batches[last + 1] / batches[last]) ** share)


def kept(rows: pl.DataFrame, name: str, than: str | None = None) -> Floats:
    """Largest batch within 1 % of the loss at the smallest one, for each seed by its own losses (seeds,).

    The loss at the smallest batch is the optimizer's own, or that of another, ``than``; NaN where no batch keeps it.
    """
    (batches, values), (_, theirs) = losses(rows, name), losses(rows, than or name)
    return np.array([largest_within(batches, own, CLOSE * bar[0]) for own, bar in zip(values, theirs, strict=True)])


def best(rows: pl.DataFrame) -> str:
    """The optimizer of the lowest mean loss at the smallest batch."""
    names = [name for name in ORDER if name in rows["optimizer"].unique()]
    return min(names, key=lambda name: float(losses(rows, name)[1][:, 0].mean()))


def geometric(values: Floats) -> Triple:
    """Geometric mean and 90 % interval of what is known."""
    mean, low, high = (math.exp(bound) for bound in interval(np.log(values[~np.isnan(values)])))
    return mean, low, high


def largest_logits(rows: pl.DataFrame, name: str, batch: int) -> Floats:
    """Largest attention logit over training (seeds, layers); runs that failed are left out."""
    own = rows.filter(~pl.col("tuning") & (pl.col("optimizer") == name) & (pl.col("batch") == batch)).sort("seed")
    return np.array([np.max(logits, axis=0) for logits in own["logits"].to_list() if logits])


def differences(rows: pl.DataFrame, better: str, worse: str) -> list[tuple[int, Triple]]:
    """Loss of ``worse`` less that of ``better`` at each batch that both have, paired by seed: mean and interval.

    A seed of which a run failed is left out.
    """
    (sizes, ours), (others, theirs) = losses(rows, better), losses(rows, worse)
    both = [size for size in sizes if size in others]
    pairs = [np.hstack([theirs[:, others == size], ours[:, sizes == size]]) for size in both]
    done = [pair[np.isfinite(pair).all(axis=1)] for pair in pairs]
    return [(int(size), interval(pair[:, 0] - pair[:, 1])) for size, pair in zip(both, done, strict=True)]


def claims(rows: pl.DataFrame) -> list[tuple[str, str, str]]:
    """Each part of the claim with its verdict and the numbers for it, of the optimizers in `ORDER` that were run."""
    names = [name for name in ORDER if name in rows["optimizer"].unique()]
    batches = losses(rows, names[0])[0]
    smallest, largest = int(batches[0]), int(batches[-1])
    grown = geometric(kept(rows, names[0]) / smallest)
    what = f"{names[0]} keeps its loss within 1 % at {CLAIMED:g} x the smallest batch"
    found = [(what, verdict(above(grown, CLAIMED)), f"{shown(grown)} x")]
    pairs = list(pairwise(names))
    ratios = [geometric(kept(rows, a) / kept(rows, b)) for a, b in pairs]
    told = "; ".join(f"{a} over {b}: {shown(ratio)}" for (a, b), ratio in zip(pairs, ratios, strict=True))
    order = " > ".join(names)
    found.append((f"largest batch within 1 %: {order}", verdict(*(above(ratio, 1) for ratio in ratios)), told))
    for size in (int(batches[-2]), largest):
        gains = [dict(differences(rows, a, b))[size] for a, b in pairs]
        told = "; ".join(f"{b} less {a}: {shown(gain, '+.3f')}" for (a, b), gain in zip(pairs, gains, strict=True))
        found.append((f"lowest loss at {size:,}: {order}", verdict(*(above(gain, 0) for gain in gains)), told))
    top = {name: largest_logits(rows, name, largest).max(axis=1) for name in names}
    over = [geometric(top[name] / top[names[0]]) for name in names[1:]]
    told = "; ".join(f"{name} over {names[0]}: {shown(ratio)}" for name, ratio in zip(names[1:], over, strict=True))
    what = f"attention logits at {largest:,}: {names[0]}'s are smallest"
    return [*found, (what, verdict(*(above(ratio, 1) for ratio in over)), told)]


def shown(found: Triple, form: str = ".3g") -> str:
    """A value and its interval."""
    value, low, high = found
    return f"{value:{form}} ({low:{form}} to {high:{form}})" if math.isfinite(high) else f"{value:{form}}"


def markdown(rows: pl.DataFrame) -> str:
    """Losses and the largest batch that keeps them, the claims, what runs told, ablations, and every cell."""
    reported = rows.filter(~pl.col("tuning"))
    names = [name for name in reported["optimizer"].unique(maintain_order=True) if name in ORDER]
    batches = losses(rows, names[0])[0].astype(int)
    lines = []
    for name in names:
        cells = [reported.filter((pl.col("optimizer") == name) & (pl.col("batch") == batch)) for batch in batches]
        within = [_largest(kept(rows, name, than)) for than in (name, best(rows))]
        lines.append([name, *(spread(cell["loss"]) for cell in cells), *within])
    heads = ["loss at batch", *(f"{batch:,}" for batch in batches), "largest batch within 1 %"]
    heads.append(f"within 1 % of {best(rows)} at {batches[0]}")
    parts = [
        f"Validation loss in nats a character after {rows['tokens'][0]:,} tokens; mean and deviation of "
        f"{reported['seed'].n_unique()} seed(s), 90 % intervals. {_failed(rows)} runs failed.",
        table(heads, lines),
        "### The claim in parts",
        table(["claim", "here", "numbers"], claims(rows)),
        "### The critical batch, as single runs tell it",
        _told(reported),
        "### One thing changed",
        _ablated(rows),
        "### Every batch",
        _cells(reported),
        "### Rates that were tried",
        _tried(rows.filter("tuning")),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _largest(found: Floats) -> str:
    missing = int(np.isnan(found).sum())
    text = shown(geometric(found)) if missing < len(found) else "none"
    return text if missing in (0, len(found)) else f"{text}; none for {missing} seed(s)"


def _failed(rows: pl.DataFrame) -> int:
    return rows.filter(pl.col("status") != "finished").height


def _told(reported: pl.DataFrame) -> str:
    lines = []
    for (name, batch), own in reported.drop_nulls("told_loss").group_by("optimizer", "batch", maintain_order=True):
        columns = (
            own[column].cast(pl.Float64).fill_null(0).to_numpy() for column in ("told_noise_scale", "told_b_half")
        )
        known = [values[np.isfinite(values) & (values > 0)] for values in columns]
        seen = [shown(geometric(values)) if len(values) else "-" for values in known]
        lines.append([str(name), str(batch), spread(own["told_loss"]), *seen])
    heads = ["optimizer", "run's batch", "to training loss", "`fedbatch critical`", "same sums with B_half"]
    return table(heads, lines)


def _ablated(rows: pl.DataFrame) -> str:
    lines = []
    for name in rows["optimizer"].unique(maintain_order=True):
        if name not in ORDER:
            for batch, gain in differences(rows, name.partition(",")[0], name):
                lines.append([name, f"{batch:,}", shown(gain, "+.3f")])
    return table(["changed", "batch", "loss, less that of the unchanged"], lines)


def _cells(reported: pl.DataFrame) -> str:
    lines = []
    for (name, batch), own in reported.group_by("optimizer", "batch", maintain_order=True):
        logits = largest_logits(reported, str(name), int(str(batch)))
        last = np.array([run[-1] for run in own["logits"].to_list() if run])
        told = [", ".join(f"{value:.1f}" for value in values.mean(axis=0)) for values in (logits, last) if len(values)]
        ratios = [own[f"trust_ratio_{which}"].mean() for which in ("min", "median", "max")]
        line = [str(name), f"{batch:,}", f"{own['rounds'][0]:,}", f"{own['rate'][0]:.2g}", spread(own["loss"])]
        lines.append([*line, *(told or ["-"] * 2), ", ".join(f"{r:.2g}" for r in ratios if isinstance(r, float))])
    heads = ["optimizer", "batch", "steps", "lr", "loss", "largest logits, by layer", "the same at the end"]
    return table([*heads, "trust ratios: least, median, largest layer"], lines)


def _tried(tuning: pl.DataFrame) -> str:
    lines = []
    for (name, batch), own in tuning.group_by("optimizer", "batch", maintain_order=True):
        means = own.group_by("rate").agg(pl.col("loss").mean()).sort("rate").rows()
        lines.append([str(name), f"{batch:,}", ", ".join(f"{rate:.2g}: {loss:.3f}" for rate, loss in means)])
    return table(["optimizer", "batch", "rate: mean loss of the seeds that chose"], lines)


def save_figure(rows: pl.DataFrame, path: Path) -> None:
    """Loss by batch; what each batch costs over the smallest, in per cent; and attention logits by layer."""
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    names = [name for name in COLORS if name in rows["optimizer"].unique()]
    for name in names:
        _lines(left, middle, rows, name)
        _logits(right, rows, name)
    for shift, (name, color) in enumerate(CHANGED.items()):
        if name in rows["optimizer"].unique():
            batches, values = losses(rows, name)
            left.plot(batches * (1.12 + 0.14 * shift), values.mean(axis=0), "D", color=color, ms=6, label=name)
    known = rows.filter(~pl.col("tuning")).drop_nulls("told_b_half")
    if known.height:
        ends = [geometric(known[column].to_numpy())[0] for column in ("told_noise_scale", "told_b_half")]
        for axes in (left, middle):
            axes.axvspan(*ends, color="#000000", alpha=0.1, lw=0, label="critical batch, AdamW's runs tell")
    left.set(ylabel="validation loss, nats a character")
    left.set_title("Loss (small dots: seeds)", fontsize=10)
    middle.axhline(100 * (CLOSE - 1), color="#888888", ls="--", lw=1, label="1 %")
    middle.set(ylabel="loss above that of the smallest batch, %", ylim=(-1, 200))
    middle.set_yscale("symlog", linthresh=1)
    middle.yaxis.set_major_locator(FixedLocator([-1, 0, 1, 2, 5, 10, 20, 50, 100]))
    middle.yaxis.set_major_formatter("{x:g}")
    middle.set_title("Price (bars: largest batch within 1 %, 90 %)", fontsize=10)
    right.set(yscale="log", ylabel="largest attention logit over training")
    right.set_title("Attention logits (dashed: last layer)", fontsize=10)
    grid = sorted(rows["batch"].unique())
    for axes in (left, middle, right):
        axes.set(xscale="log", xlabel="global batch, sequences")
        axes.xaxis.set_major_locator(FixedLocator(grid))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


def _lines(left: Axes, middle: Axes, rows: pl.DataFrame, name: str) -> None:
    batches, values = losses(rows, name)
    color = COLORS[name]
    left.plot(batches, values.mean(axis=0), "o-", color=color, ms=5, label=name)
    for own in values:
        left.plot(batches, own, ".", color=color, ms=4, alpha=0.6)
    over = 100 * (values / values[:, :1] - 1)
    middle.plot(batches, over.mean(axis=0), "o-", color=color, ms=5, label=name)
    knee, low, high = geometric(kept(rows, name))
    height = 100 * (CLOSE - 1) * (0.8 + 0.2 * list(COLORS).index(name))
    middle.plot(knee, height, "|", color=color, ms=14, mew=2)
    if math.isfinite(high):
        middle.plot([low, high], [height] * 2, color=color, lw=3, alpha=0.5)


def _logits(axes: Axes, rows: pl.DataFrame, name: str) -> None:
    batches = losses(rows, name)[0].astype(int)
    found = {batch: largest_logits(rows, name, batch) for batch in batches}
    points = {batch: np.exp(np.log(values).mean(axis=0)) for batch, values in found.items() if len(values)}
    heights = np.array(list(points.values()))
    for layer, style in {0: "o-", heights.shape[1] - 1: "o--"}.items():
        label = name if layer == 0 else None
        axes.plot(list(points), heights[:, layer], style, color=COLORS[name], ms=4, label=label)
