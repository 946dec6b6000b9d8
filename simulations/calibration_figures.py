"""Figures of calibration.py, from its rows alone."""

from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.calibration_report import CLEAN, SHIFTS, name_of, values

COLORS = {
    "CE": "#000000",
    "focal": "#E69F00",
    "label smoothing": "#56B4E9",
    "Brier": "#009E73",
    "SB-ECE": "#D55E00",
    "S-AvUC": "#CC79A7",
    "MMCE": "#0072B2",
}
"""Okabe and Ito: safe for colour-blind eyes."""
PANELS = (
    ("no privacy", "none", "none"),
    ("... with temperature", "none", "fitted"),
    ("examples protected", "example", "none"),
    ("... with private temperature", "example", "fitted"),
)


def save_figures(table: pl.DataFrame, folder: Path) -> None:
    """The plots of accuracy, shift, clipping and privacy, and the reliability diagrams."""
    done = table.filter(pl.col("status") == "finished")
    dataset = "fashion_mini" if "fashion_mini" in done["dataset"].to_list() else done["dataset"][0]
    iid = done.filter((pl.col("dataset") == dataset) & (pl.col("partition") == "iid"))
    losses = iid.filter(pl.col("part") == "loss")
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    axes = figure.subplots(2, 2)
    _accuracy_and_ece(axes[0, 0], losses.filter((pl.col("level") == "none") & CLEAN))
    _severity(axes[0, 1], losses.filter(pl.col("level") == "none"))
    _clipping(axes[1, 0], iid.filter((pl.col("part") == "clip norm") & CLEAN))
    _privacy(axes[1, 1], losses.filter((pl.col("loss") == "CE") & CLEAN))
    for ax in axes.flat:
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "calibration.png", dpi=110)
    _reliability(losses.filter((pl.col("loss") == "CE") & CLEAN), folder / "calibration_reliability.png")


def _accuracy_and_ece(ax: Axes, rows: pl.DataFrame) -> None:
    for (loss, weight), cell in rows.group_by("loss", "weight", maintain_order=True):
        color, accuracy = COLORS[str(loss)], 100 * values(cell, "accuracy").mean()
        plain, scaled = (values(cell, "ece_mass", kind).mean() for kind in ("none", "fitted"))
        ax.plot([plain, scaled], [accuracy, accuracy], color=color, lw=0.8, alpha=0.5)
        first = loss not in ax.get_legend_handles_labels()[1]
        ax.plot(plain, accuracy, "o", color=color, label=loss if first else None)
        ax.plot(scaled, accuracy, "o", color=color, mfc="white")
        if float(weight):
            ax.annotate(f"{weight:g}", (plain, accuracy), xytext=(4, 3), textcoords="offset points", fontsize=7)
    ax.set(xlabel="ECE (equal mass, l2, debiased)", ylabel="test accuracy %")
    ax.set_title("Accuracy and calibration by loss (numbers: weight;\nopen: after temperature scaling)", fontsize=10)
    ax.legend(fontsize=8)


def _severity(ax: Axes, rows: pl.DataFrame) -> None:
    for name, weight, kind, style in (
        ("CE", 0.0, "none", "-"),
        ("CE", 0.0, "fitted", "--"),
        ("SB-ECE", 1.0, "none", "-"),
        ("focal", 0.0, "none", "-"),
        ("label smoothing", 0.0, "none", "-"),
    ):
        cell = rows.filter((pl.col("loss") == name) & (pl.col("weight") == weight) & (pl.col("temperature") == kind))
        by_severity = cell.group_by("severity").agg(pl.col("ece_mass").mean()).sort("severity")
        label = name_of(name, weight) + (", temperature" if kind == "fitted" else "")
        ax.plot(by_severity["severity"], by_severity["ece_mass"], style, marker=".", color=COLORS[name], label=label)
    ax.set(xlabel="severity", ylabel="ECE")
    ax.set_title(f"Shifted images, mean of {', '.join(SHIFTS)}\n(0: as they are)", fontsize=10)
    ax.legend(fontsize=8)


def _clipping(ax: Axes, rows: pl.DataFrame) -> None:
    norms = sorted(rows["weight"].unique())
    for kind, label, color in (("none", "no temperature", COLORS["CE"]), ("exact", "temperature", COLORS["SB-ECE"])):
        own = [values(rows.filter(pl.col("weight") == norm), "ece_mass", kind) for norm in norms]
        ax.errorbar(
            norms, [v.mean() for v in own], [v.std() for v in own], color=color, marker="o", capsize=3, label=label
        )
    ax.set(xscale="log", xlabel="clip norm of an example's gradient (no noise)", ylabel="ECE")
    ax.set_title("What clipping does to calibration", fontsize=10)
    if norms:
        ax.legend(fontsize=8)


def _privacy(ax: Axes, rows: pl.DataFrame) -> None:
    levels = ["none", "client", "example"]
    for shift, (kind, label) in enumerate(
        (("none", "no temperature"), ("fitted", "the run's temperature"), ("exact", "exact temperature"))
    ):
        shown = [(x, values(rows.filter(pl.col("level") == name), "ece_mass", kind)) for x, name in enumerate(levels)]
        shown = [(x, v) for x, v in shown if len(v)]
        places = [x + 0.27 * (shift - 1) for x, _ in shown]
        color = (COLORS["CE"], COLORS["SB-ECE"], COLORS["label smoothing"])[shift]
        ax.bar(places, [v.mean() for _, v in shown], 0.25, yerr=[v.std() for _, v in shown], color=color, label=label)
    ax.set_xticks(range(3), ["no privacy", "clients", "examples"])
    ax.set(ylabel="ECE")
    ax.set_title("Cross-entropy by what is protected (epsilon 8)", fontsize=10)
    ax.legend(fontsize=8)


def _reliability(rows: pl.DataFrame, path: Path) -> None:
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    axes = figure.subplots(1, len(PANELS), sharey=True)
    for ax, (title, level, kind) in zip(axes, PANELS, strict=True):
        own = rows.filter((pl.col("level") == level) & (pl.col("temperature") == kind))
        count, confidence, correct = np.array(own["bins"].to_list()).sum(axis=0).reshape(3, -1)
        kept = count >= 10  # fewer say nothing
        at = confidence[kept] / count[kept]
        ax.plot([0, 1], [0, 1], color="#888888", lw=1, ls="--")
        ax.bar(at, correct[kept] / count[kept], 0.07, color=COLORS["label smoothing"], alpha=0.5)
        ax.plot(at, correct[kept] / count[kept], "o-", color=COLORS["MMCE"], ms=4)
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence")
        ax.set_title(f"{title}\nECE {values(own, 'ece_mass', kind).mean():.3f}", fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("accuracy")
    figure.savefig(path, dpi=110)
