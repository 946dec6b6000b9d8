"""Tables and figure of soft_calibration.py, from its rows alone. ECE is l2, of equal mass, debiased."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.tables import above, interval, table, verdict

CLAIMED, LOST = 60.0, 1.0
"""Per cent of ECE that a composite has to cut, and of accuracy that it may cost."""
COLORS = {
    "CE": "#000000",
    "focal": "#E69F00",
    "label smoothing": "#999999",
    "CE + soft objective": "#0072B2",
    "focal + soft objective": "#D55E00",
}
MARKERS = {"label-binned": "s", "S-AvUC": "^"}
CLEAN, RAW = pl.col("shift") == "clean", pl.col("temperature") == "none"
Floats = npt.NDArray[np.float64]
Triple = tuple[float, float, float]


def reported(rows: pl.DataFrame) -> pl.DataFrame:
    """What counts: finished runs of seeds that chose nothing."""
    return rows.filter(~pl.col("tuning") & (pl.col("status") == "finished"))


def by_seed(rows: pl.DataFrame, column: str) -> Floats:
    """A column in the order of seeds, shifts averaged."""
    return rows.group_by("seed").agg(pl.col(column).mean()).sort("seed")[column].to_numpy()


def cut(rows: pl.DataFrame, base: pl.DataFrame, column: str = "ece_mass") -> Floats:
    """Per cent by which a column is below that of other runs with the same seeds."""
    ours, theirs = (by_seed(of.filter(pl.col("seed").is_in(rows["seed"].unique())), column) for of in (rows, base))
    return 100 * (1 - ours / theirs)


def shown(bounds: Triple, form: str = ".1f") -> str:
    """A mean and its interval."""
    mean, low, high = bounds
    return f"{mean:{form}} ({low:{form}} to {high:{form}})" if np.isfinite(low) else f"{mean:{form}}"


def best_composite(rows: pl.DataFrame) -> str | None:
    """The composite of least ECE on held-out data among those reported, by the run that chose."""
    known = rows.filter(~pl.col("tuning") & pl.col("family").str.contains("+", literal=True))["loss"].unique()
    tried = rows.filter(pl.col("tuning") & pl.col("loss").is_in(known)).sort("held_out_ece_mass")
    return str(tried["loss"][0]) if tried.height else None


def claim(soft: pl.DataFrame, base: pl.DataFrame) -> tuple[str, Triple, Triple]:
    """Whether a loss cuts the ECE of cross-entropy as claimed, by how many per cent, and per cent of accuracy lost."""
    less, lost = interval(cut(soft, base)), interval(cut(soft, base, "accuracy"))
    costs = above(lost, LOST)
    return verdict(above(less, CLAIMED), None if costs is None else not costs), less, lost


def claims(rows: pl.DataFrame) -> str:
    """Every chosen loss of the first setting beside cross-entropy and beside focal loss."""
    own = reported(rows).filter(CLEAN & RAW & (pl.col("setting") == rows["setting"][0]))
    base, focal = (own.filter(pl.col("family") == family) for family in ("CE", "focal"))
    lines = []
    for (name,), cell in own.filter(pl.col("family") != "CE").group_by("loss", maintain_order=True):
        answer, less, lost = claim(cell, base)
        lines.append([str(name), answer, shown(less), shown(lost, ".2f")])
        gains = [interval(by_seed(cell, column) - by_seed(focal, column)) for column in ("ece_mass", "accuracy")]
        lines[-1] += ["", ""] if focal.is_empty() or name == focal["loss"][0] else [shown(g, "+.3f") for g in gains]
    heads = ["loss", f"{CLAIMED:g} % for {LOST:g} %", "ECE cut, %", "accuracy lost, % of it"]
    return table([*heads, "ECE, less focal's", "accuracy, less focal's"], lines)


def markdown(rows: pl.DataFrame) -> str:
    """The verdicts, the losses of every setting, and the grid that was tried."""
    failed = rows.filter(pl.col("status") != "finished").height
    start = (
        f"Beside cross-entropy: ECE cut by {CLAIMED:g} % for less than {LOST:g} % of accuracy? {failed} runs failed."
    )
    lines = [start, "", claims(rows)]
    for (setting,), own in reported(rows).group_by("setting", maintain_order=True):
        lines += [f"### {setting}, {own['seed'].n_unique()} seeds", "", _losses(own)]
    lines += [f"### Tried on held-out data: {rows['setting'][0]}, one seed", "", _tried(rows)]
    return "\n".join(lines)


def _losses(own: pl.DataFrame) -> str:
    lines = []
    base = own.filter(CLEAN & RAW & (pl.col("loss") == "CE"))
    for (name,), cell in own.group_by("loss", maintain_order=True):
        raw, fitted = cell.filter(CLEAN & RAW), cell.filter(CLEAN & ~RAW)
        moved = [cell.filter(~CLEAN & kind) for kind in (RAW, ~RAW)]
        line = [str(name), shown(interval(100 * by_seed(raw, "train_accuracy")))]
        line += [f"{by_seed(raw, 'train_ece_mass').mean():.3f}", shown(interval(100 * by_seed(raw, "accuracy")))]
        line += [shown(interval(by_seed(at, "ece_mass")), ".3f") for at in (raw, fitted)]
        line += ["" if name == "CE" else shown(interval(cut(raw, base)), ".0f")]
        line += [f"{by_seed(at, 'ece_mass').mean():.3f}" for at in moved]
        lines.append([*line, f"{by_seed(fitted, 'value').mean():.2f}"])
    heads = ["train accuracy, %", "train ECE", "test accuracy, %", "ECE", "ECE with T", "ECE cut, %"]
    return table(["loss", *heads, "ECE shifted", "ECE shifted, T", "T"], lines)


def _tried(rows: pl.DataFrame) -> str:
    tried = rows.filter(pl.col("tuning") & (pl.col("status") == "finished") & CLEAN & RAW)
    shares = [[f"{100 * value:.1f}" for value in tried[f"{part}_accuracy"]] for part in ("train", "held_out")]
    lines = zip(tried["loss"], *shares, (f"{value:.3f}" for value in tried["held_out_ece_mass"]), strict=True)
    return table(["loss", "train accuracy, %", "held-out accuracy, %", "held-out ECE"], lines)


def save_figure(rows: pl.DataFrame, path: Path) -> None:
    """What was tried, what was chosen with and without a temperature, and other settings."""
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _grid(left, rows)
    own = reported(rows).filter(CLEAN)
    _chosen(middle, own.filter(pl.col("setting") == rows["setting"][0]))
    shown_losses = pl.col("family").is_in(["CE", "focal"]) | (pl.col("loss") == best_composite(rows))
    _settings(right, own.filter(RAW & shown_losses))
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(path, dpi=120)


def _grid(axes: Axes, rows: pl.DataFrame) -> None:
    tried = rows.filter(pl.col("tuning") & (pl.col("status") == "finished") & CLEAN & RAW)
    floor = (100 - LOST) * float(tried.filter(pl.col("loss") == "CE")["held_out_accuracy"][0])
    for family, color in COLORS.items():
        for row in tried.filter(pl.col("family") == family).iter_rows(named=True):
            marker = next((shape for name, shape in MARKERS.items() if name in row["loss"]), "o")
            axes.plot(100 * row["held_out_accuracy"], row["held_out_ece_mass"], marker, color=color, ms=6)
        axes.plot([], [], "o", color=color, label=family)
    for name, marker in {"SB-ECE": "o", **MARKERS}.items():
        axes.plot([], [], marker, color="#FFFFFF", mec="#000000", label=f"with {name}")
    axes.axvline(floor, color="#888888", ls="--", lw=1)
    axes.set(xlabel="held-out accuracy, %", ylabel="held-out ECE", xlim=(floor - 6, floor + 3))
    axes.set_title("All that was tried, one seed\n(right of the line: within 1 % of CE)", fontsize=10)
    axes.legend(frameon=False, fontsize=7)


def _chosen(axes: Axes, own: pl.DataFrame) -> None:
    families = [family for family in COLORS if family in own["family"].to_list()]
    for place, family in enumerate(reversed(families)):
        for kind, offset, alpha in ((RAW, 0.2, 1.0), (~RAW, -0.2, 0.4)):
            values = by_seed(own.filter(kind & (pl.col("family") == family)), "ece_mass")
            axes.barh(place + offset, values.mean(), 0.36, color=COLORS[family], alpha=alpha)
            axes.plot(values, np.full(len(values), place + offset), ".", color="#444444", ms=4)
    axes.set_yticks(range(len(families)), list(reversed(families)), fontsize=8)
    axes.set(xlabel="ECE on test images")
    axes.set_title("Chosen losses; pale: after a temperature\n(dots: seeds)", fontsize=10)


def _settings(axes: Axes, own: pl.DataFrame) -> None:
    names = own["setting"].unique(maintain_order=True).to_list()
    losses = own["family"].unique(maintain_order=True).to_list()
    for index, family in enumerate(losses):
        for place, name in enumerate(names):
            values = by_seed(own.filter((pl.col("setting") == name) & (pl.col("family") == family)), "ece_mass")
            if len(values):
                at, label = place + 0.26 * (index - 1), family if place == 0 else None
                axes.bar(at, values.mean(), 0.24, color=COLORS[family], label=label)
                axes.plot(np.full(len(values), at), values, ".", color="#444444", ms=4)
    axes.set_xticks(range(len(names)), [name.replace(", ", "\n") for name in names], fontsize=8)
    axes.set(ylabel="ECE on test images, no temperature")
    axes.set_title("Other settings", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
