"""Tables and headline numbers of calibration.py, from its rows alone. ECE is l2, of equal mass, debiased throughout."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

COMPOSITE = ("SB-ECE", "S-AvUC", "MMCE")
SHIFTS = ("noise", "blur", "rotation")
LEVELS = {
    "none": "without privacy",
    "client": "client-level privacy, epsilon 8",
    "example": "example-level privacy, epsilon 8",
}
CLEAN = pl.col("shift") == "clean"


def markdown(table: pl.DataFrame) -> str:
    """All tables: losses, shifts, batches, clip norms."""
    done = table.filter(pl.col("status") == "finished")
    failed = table.height - done.height
    lines = [f"{failed} runs failed." if failed else "No run failed.", ""]
    for (dataset, level), rows in done.filter(pl.col("part") == "loss").group_by(
        "dataset", "level", maintain_order=True
    ):
        lines += _losses(f"{dataset}, {LEVELS[str(level)]}", rows)
    lines += _shifts(done.filter((pl.col("part") == "loss") & (pl.col("level") == "none")))
    lines += _forms(done)
    lines += _clipping(done.filter(pl.col("part") == "clip norm"))
    return "\n".join(lines) + "\n"


def name_of(loss: str, weight: float) -> str:
    """A loss with its weight, as tables and figures call it."""
    return f"CE + {weight:g} {loss}" if weight else loss


def values(rows: pl.DataFrame, column: str, temperature: str = "none") -> np.ndarray:
    """A column by seed, on clean images unless ``rows`` are of a shift."""
    return rows.filter(pl.col("temperature") == temperature).sort("seed")[column].to_numpy()


def spread(numbers: Sequence[float] | np.ndarray, scale: float = 1.0, digits: int = 3) -> str:
    """Mean and standard deviation."""
    numbers = scale * np.asarray(numbers, dtype=float)
    if not len(numbers):
        return "-"
    deviation = numbers.std(ddof=1) if len(numbers) > 1 else 0.0
    return f"{numbers.mean():.{digits}f} ± {deviation:.{digits}f}"


def _losses(title: str, rows: pl.DataFrame) -> list[str]:
    private = "exact" in rows["temperature"].to_list()
    more = ["ECE, exact T"] if private else []
    columns = ["accuracy %", "ECE", "ECE, T", *more, "T", "NLL", "NLL, T"]
    lines = [f"### {title}", "", f"| partition | loss | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    for (partition, loss, weight), cell in rows.filter(CLEAN).group_by(
        "partition", "loss", "weight", maintain_order=True
    ):
        numbers = [spread(values(cell, "accuracy"), 100, 1)]
        numbers += [
            spread(values(cell, "ece_mass", kind)) for kind in ("none", "fitted", *(["exact"] if private else []))
        ]
        numbers += [spread(values(cell, "value", "fitted"), digits=2)]
        numbers += [spread(values(cell, "nll", kind)) for kind in ("none", "fitted")]
        lines.append(f"| {partition} | {name_of(str(loss), float(weight))} | {' | '.join(numbers)} |")
    return [*lines, ""]


def _shifts(rows: pl.DataFrame) -> list[str]:
    lines = ["### Shifted images, without privacy, iid: ECE, mean over five severities", ""]
    lines += ["| data set | loss | T | clean | " + " | ".join(SHIFTS) + " |", "|---" * (4 + len(SHIFTS)) + "|"]
    iid = rows.filter(pl.col("partition") == "iid")
    for (dataset, loss, weight), cell in iid.group_by("dataset", "loss", "weight", maintain_order=True):
        for kind in ("none", "fitted"):
            numbers = [spread(by_seed(cell, shift, kind)) for shift in ("clean", *SHIFTS)]
            scaled = "fitted" if kind == "fitted" else "1"
            lines.append(f"| {dataset} | {name_of(str(loss), float(weight))} | {scaled} | {' | '.join(numbers)} |")
    return [*lines, ""]


def by_seed(cell: pl.DataFrame, shift: str, kind: str) -> np.ndarray:
    """ECE under a shift by seed, mean over severities."""
    own = cell.filter((pl.col("shift") == shift) & (pl.col("temperature") == kind))
    return own.group_by("seed").agg(pl.col("ece_mass").mean()).sort("seed")["ece_mass"].to_numpy()


def _forms(done: pl.DataFrame) -> list[str]:
    lines = ["### Batches of the same number of examples (fashion_mini, iid, without privacy)", ""]
    lines += ["| batch | loss | accuracy % | ECE | ECE, T |", "|---" * 5 + "|"]
    compared = done.filter(CLEAN & (pl.col("dataset") == "fashion_mini") & (pl.col("level") == "none"))
    compared = compared.filter((pl.col("partition") == "iid") & pl.col("loss").is_in(["CE", "SB-ECE"]))
    compared = compared.filter(pl.col("weight").is_in([0.0, 1.0]))
    for (part, loss, weight), cell in compared.group_by("part", "loss", "weight", maintain_order=True):
        form = "large batch" if part == "loss" else part
        ece = [spread(values(cell, "ece_mass", kind)) for kind in ("none", "fitted")]
        accuracy = spread(values(cell, "accuracy"), 100, 1)
        lines.append(f"| {form} | {name_of(str(loss), float(weight))} | {accuracy} | {' | '.join(ece)} |")
    return [*lines, ""]


def _clipping(rows: pl.DataFrame) -> list[str]:
    lines = ["### Clipping of examples without noise (fashion_mini, iid, CE)", ""]
    lines += ["| clip norm | accuracy % | ECE | ECE, T | T |", "|---" * 5 + "|"]
    for (norm,), cell in rows.filter(CLEAN).group_by("weight", maintain_order=True):
        ece = [spread(values(cell, "ece_mass", kind)) for kind in ("none", "exact")]
        accuracy, chosen = spread(values(cell, "accuracy"), 100, 1), spread(values(cell, "value", "exact"), digits=2)
        lines.append(f"| {norm:g} | {accuracy} | {' | '.join(ece)} | {chosen} |")
    return [*lines, ""]


def headline(table: pl.DataFrame) -> dict[str, Any]:
    """For each data set and partition: the composite loss that held-out data choose, against plain cross-entropy."""
    done = table.filter((pl.col("status") == "finished") & (pl.col("part") == "loss") & CLEAN)
    found = {}
    for (dataset, partition), rows in done.filter(pl.col("level") == "none").group_by(
        "dataset", "partition", maintain_order=True
    ):
        found[f"{dataset}, {partition}"] = compare(rows)
    return found


def compare(rows: pl.DataFrame) -> dict[str, Any]:
    """The composite with the least held-out ECE among those within 1 % of the held-out accuracy of cross-entropy."""
    plain = rows.filter(pl.col("loss") == "CE")
    floor = 0.99 * values(plain, "held_out_accuracy").mean()
    candidates = {
        (str(loss), float(weight)): cell
        for (loss, weight), cell in rows.filter(pl.col("loss").is_in(COMPOSITE)).group_by("loss", "weight")
        if values(cell, "held_out_accuracy").mean() >= floor
    }
    if not candidates:
        return {"chosen": None}
    chosen = min(sorted(candidates), key=lambda name: float(values(candidates[name], "held_out_ece_mass").mean()))
    best = candidates[chosen]
    before, after = values(plain, "ece_mass").mean(), values(best, "ece_mass").mean()
    accuracy = values(plain, "accuracy").mean(), values(best, "accuracy").mean()
    return {
        "chosen": name_of(*chosen),
        "ece_ce": spread(values(plain, "ece_mass")),
        "ece_chosen": spread(values(best, "ece_mass")),
        "ece_ce_with_temperature": spread(values(plain, "ece_mass", "fitted")),
        "ece_chosen_with_temperature": spread(values(best, "ece_mass", "fitted")),
        "ece_reduction_percent": round(100 * (1 - after / before), 1) if before else None,
        "relative_accuracy_change_percent": round(100 * (accuracy[1] / accuracy[0] - 1), 2),
        "seeds": len(values(plain, "ece_mass")),
    }
