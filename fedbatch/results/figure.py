"""The picture of a run: why the batch changed, and what came of it."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedbatch.core.find_columns import seen_as

Row = dict[str, Any]
NOISE, BATCH, SCORE, SHADE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E8E8E8",
)  # Okabe and Ito: safe for colour-blind eyes


def save_figure(rows: Sequence[Row], path: Path, score: str = "test_accuracy") -> None:
    """Two panels over rounds: noise scale with its band against the global batch, and the column ``score``."""
    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    rounds = np.array([row["rounds"] for row in rows])
    names = ("noise_scale", "noise_scale_low", "noise_scale_high")
    name, *ends = (seen_as(each, rows[-1]) if rows else each for each in names)
    value, low, high = (_column(rows, each) for each in (name, *ends))
    value[~np.isfinite(value)] = np.nan  # not identified in these rounds
    in_clients = bool(rows) and rows[-1]["noise_scale_unit"] == "clients"
    batch = _column(rows, "cohort_size" if in_clients else "global_batch")
    top.fill_between(
        rounds,
        low,
        np.where(np.isposinf(high), 2 * np.nanmax(batch, initial=1.0), high),  # open above: beyond the batch
        color=NOISE,
        alpha=0.2,
        lw=0,
    )
    top.plot(
        rounds,
        value,
        color=NOISE,
        label="noise scale and its interval" if name == "noise_scale" else "noise scale with privacy noise",
    )
    top.step(rounds, batch, color=BATCH, where="mid", label="global batch")
    top.set(yscale="log", ylabel="clients" if in_clients else "examples")
    top.legend(frameon=False, loc="best")
    scores = _column(rows, score)
    tested = np.isfinite(scores)
    bottom.plot(rounds[tested], scores[tested], color=SCORE)
    bottom.set(ylabel=score.replace("_", " "), xlabel="rounds")
    for axes in (top, bottom):
        _shade_phases(axes, rows)
        axes.spines[["top", "right"]].set_visible(False)
    reasons = [f"after round {row['rounds']}: {row['switch']}" for row in rows if row["switch"]]
    more = [f"and {len(reasons) - 3} more changes"] if len(reasons) > 3 else []
    top.set_title("\n".join(reasons[:3] + more), loc="left", fontsize=9, color="#444444", parse_math=False)
    figure.savefig(path, dpi=144)


def _shade_phases(axes: Axes, rows: Sequence[Row]) -> None:
    names = list(dict.fromkeys(row["phase"] for row in rows))
    for phase, group in groupby(rows, key=lambda row: row["phase"]):
        stretch = list(group)
        start, end = stretch[0]["rounds"] - 0.5, stretch[-1]["rounds"] + 0.5
        if names.index(phase) % 2:
            axes.axvspan(start, end, color=SHADE, zorder=0, lw=0)
        if len(names) > 1:
            axes.text(
                (start + end) / 2,
                0.02,
                phase,
                transform=axes.get_xaxis_transform(),
                ha="center",
                color="#444444",
                parse_math=False,
            )


def _column(rows: Sequence[Row], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], dtype=float)
