"""Tables of critical_batch_size.py, from its rows alone."""

import numpy as np
import polars as pl

from simulations.critical_agreement import agreement, rms_factor
from simulations.critical_branching import largest_without_loss
from simulations.critical_reading import READ_OUTS
from simulations.tables import table

JUDGED = 30.0
"""Noiseless steps that a goal must be away."""
HEADINGS = [
    *("goals", "tasks", "decades", "r^2", "90 % over tasks", "one task left out", "within tasks", "between tasks"),
    *("about equality", "rms factor", "median ratio", "within 2"),
]


def markdown(found: pl.DataFrame, spent: pl.DataFrame, branched: pl.DataFrame) -> str:
    """All tables."""
    judged = found.filter(pl.col("fit_s_min") >= JUDGED)
    parts = {
        f"Registered predictor; goals of {JUDGED:g} noiseless steps or more": groups(judged),
        "Other read-outs of the same runs": read_outs(judged),
        "Steps at all other batches, predicted from the smallest": cost_table(spent),
        "Branches": branch_table(branched),
        "Every goal": goal_table(found),
    }
    return "\n".join(f"## {name}\n\n{text}" for name, text in parts.items() if text)


def groups(judged: pl.DataFrame) -> str:
    """Agreement by optimizer and kind of task."""
    lines = []
    for (optimizer,), cell in judged.group_by("optimizer", maintain_order=True):
        kinds = {"all": cell} | {kind: cell.filter(kind=kind) for kind in ("natural", "artificial noise")}
        for kind, rows in kinds.items():
            if rows["task"].n_unique() >= 3:
                lines.append([str(optimizer), kind, *_numbers(rows, "told")])
    return table(["optimizer", "tasks", *HEADINGS], lines) if lines else "Fewer than three tasks.\n"


def read_outs(judged: pl.DataFrame) -> str:
    """Agreement of every read-out by optimizer."""
    lines = [
        [str(optimizer), words, *_numbers(cell, name)]
        for (optimizer,), cell in judged.group_by("optimizer", maintain_order=True)
        for name, words in READ_OUTS.items()
        if cell["task"].n_unique() >= 3
    ]
    return table(["optimizer", "read-out", *HEADINGS], lines) if lines else ""


def _numbers(rows: pl.DataFrame, column: str) -> list[str]:
    a = agreement(rows[column].to_numpy(), rows["b_crit"].to_numpy(), rows["task"].to_numpy())
    return [
        *(str(a.goals), str(a.tasks), f"{a.decades:.1f}", f"{a.r2:.2f}"),
        *(f"{low:.2f} to {high:.2f}" for low, high in (a.r2_interval, a.r2_without)),
        *(f"{value:.2f}" for value in (a.within_tasks, a.between_tasks, a.equality, a.factor, a.median)),
        f"{a.within_2}",
    ]


def cost_table(spent: pl.DataFrame) -> str:
    """How far predicted and measured steps differ, by optimizer and times the smallest batch."""
    lines = []
    judged = spent.filter(pl.col("fit_s_min") >= JUDGED).with_columns(ratio=pl.col("predicted") / pl.col("steps"))
    by_optimizer = judged.sort("times").group_by("optimizer", "times", maintain_order=True)
    for (optimizer, times), cell in sorted(by_optimizer, key=lambda pair: str(pair[0][0])):
        ratios = cell["ratio"].to_numpy()
        close = [f"{int((np.abs(np.log(ratios)) <= np.log(factor)).sum())}" for factor in (1.5, 2)]
        numbers = [f"{rms_factor(ratios):.2f}", f"{np.median(ratios):.2f}", *close]
        lines.append([str(optimizer), f"{times:g}", str(len(ratios)), *numbers])
    return table(
        [
            "optimizer",
            "times the batch",
            "cells",
            "rms factor",
            "median predicted / measured",
            "within 1.5",
            "within 2",
        ],
        lines,
    )


def branch_table(branched: pl.DataFrame) -> str:
    """The largest batch that loses nothing beside the noise scale at that moment."""
    if branched.is_empty():
        return ""
    lines = []
    keys = ("optimizer", "task", "number", "noise")
    for (optimizer, task, number, noise), moment in branched.group_by(keys, maintain_order=True):
        largest = largest_without_loss(moment)
        sign = ">= " if largest >= 0.999 * moment["batch"].to_numpy().max() else ""
        ways = moment.group_by("batch").agg((pl.col("before") - pl.col("after")).mean().alias("way")).sort("batch")
        kept = ", ".join(f"{batch}: {way / ways['way'][0]:.2f}" for batch, way in ways.iter_rows())
        lines.append([str(optimizer), str(task), str(number), f"{noise:,.0f}", f"{sign}{largest:,.0f}", kept])
    return table(["optimizer", "task", "goal", "noise scale", "largest without loss", "way kept by batch"], lines)


def goal_table(found: pl.DataFrame) -> str:
    """A line for each task and goal."""
    lines = []
    for row in found.iter_rows(named=True):
        fitted = f"{row['b_crit']:,.3g} ({row['b_crit_low']:,.3g} to {row['b_crit_high']:,.3g})"
        sizes = [f"{row['fit_s_min']:.0f}", fitted, f"{row['told_s_min']:.0f}", f"{row['told']:,.3g}"]
        judged = f"{row['told'] / row['b_crit']:.2f}" if row["fit_s_min"] >= JUDGED else "not judged"
        lines.append([row["optimizer"], row["task"], f"{row['goal']:.4g}", *sizes, judged, f"{row['saturated']:.2f}"])
    names = ["optimizer", "task", "goal", "S_min", "B_crit (90 %)", "S_min told", "B_crit told", "ratio"]
    return table([*names, "saturated"], lines)
