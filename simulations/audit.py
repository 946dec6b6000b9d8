"""Which epsilon an attacker can prove, for every mechanism, and whether a tenth of the noise would be caught.

``python -m simulations.audit`` attacks each mechanism on a task of canaries (`fedbatch.audit`) and writes a table and a
figure: the claim, the lower bound found, and the lower bound with a tenth of the noise.
"""

from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl

import fedbatch
from simulations.study import command

SUMMARY = "lower bounds of epsilon that an attacker proves, for every mechanism"
LOCAL = ("client_work=local_sgd", "client_work.epochs=null", "client_work.steps=2")
KINDS = {
    "client_central, everyone in every round": ("privacy=client_central",),
    "client_central, q = 1/4": ("privacy=client_central", "cohort_size=25"),
    "client_central, clip norm follows a quantile": ("privacy=client_central", "privacy.clip_quantile=0.7"),
    "client_central, two local steps": ("privacy=client_central", *LOCAL),
    "client_central, rounds end with the budget": ("privacy=client_central", "cohort_size=25", "controller=adaptive"),
    "example_local, q = 0.16": ("privacy=example_local",),
    "example_local, two local steps": ("privacy=example_local", *LOCAL),
    "example_central, q = 0.16": ("privacy=example_central",),
    "client_ftrl, correlated over 2 rounds": ("privacy=client_ftrl", "privacy.bands=2"),
    "example_ftrl, correlated over 4 rounds": ("privacy=example_ftrl", "privacy.bands=4"),
    "example_distributed, 8 shares": ("privacy=example_distributed",),
}
COLORS = {"bound": "#0072B2", "control": "#D55E00"}


def main(arguments: list[str] | None = None) -> None:
    """Attack, write the table and the figure."""
    with command("audit", SUMMARY, "100 canaries, five rounds", arguments, False) as study:
        rounds, canaries = (5, 100) if study.quick else (30, 1000)
        cells = [partial(measure, rounds, canaries, kind) for kind in KINDS]
        rows = pl.DataFrame(study.rows(cells), infer_schema_length=None)
        study.save(rows)
        study.tell(markdown(rows))
        save_figure(rows, study.figure())


def measure(rounds: int, canaries: int, kind: str) -> list[dict[str, Any]]:
    """The row of one mechanism."""
    found = fedbatch.audit(*KINDS[kind], rounds=rounds, number=canaries)
    assert found.control is not None
    row = {
        "mechanism": kind,
        "claim": found.audit.claim,
        "bound": found.audit.bound,
        "bound_without_shape": found.audit.bound_without_shape,
        "refuted": found.audit.refuted,
        "control_bound": found.control.bound,
        "control_caught": found.control.refuted,
    }
    return [row]


def markdown(rows: pl.DataFrame) -> str:
    """A line for each mechanism."""
    lines = [
        "| mechanism | claim | lower bound | whatever the mechanism | with a tenth of the noise | caught |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows.iter_rows(named=True):
        caught = "yes" if row["control_caught"] else "no"
        lines.append(
            f"| {row['mechanism']} | {row['claim']:.2f} | {row['bound']:.2f} | {row['bound_without_shape']:.2f} | "
            f"{row['control_bound']:.1f} | {caught} |"
        )
    return "\n".join(lines)


def save_figure(rows: pl.DataFrame, path: Path) -> None:
    """Claim, bound and control of each mechanism on one scale."""
    figure, axes = plt.subplots(figsize=(8, 0.3 * len(rows) + 1.2), layout="constrained")
    at = np.arange(len(rows))[::-1]
    axes.axvline(rows["claim"].to_numpy().max(), color="black", lw=1, ls="--", label="claim")
    axes.plot(rows["bound"], at, "o", color=COLORS["bound"], label="lower bound that the attack proves")
    axes.plot(rows["control_bound"], at, "s", color=COLORS["control"], label="the same with a tenth of the noise")
    axes.set_yticks(at, rows["mechanism"].to_list())
    axes.set_xlim(left=0)
    axes.set_xlabel("epsilon at delta 1e-5")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
