"""Time of a round against its cohort: ``python -m benchmarks.figure``, from ``docs/results/bench.json``."""

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
OURS = ("fedbatch chain", "fedbatch fused", "fedbatch vmap", "fedbatch loop")
STYLES = {
    "pfl": ("#9467bd", "s", "pfl 0.6"),
    "plain loop with norms": ("#7f7f7f", "v", "plain PyTorch loop"),
    "JAX": ("#2ca02c", "^", "JAX, one jit"),
    "ours": ("#1f77b4", "o", "fedbatch"),
    "limit": ("#000000", "", "limit: no clients"),
}
TITLES = {"fedsgd": "FedSGD, batches of 10", "local_sgd": "local SGD, five batches of 10"}


def main() -> None:
    """Draw and save."""
    rows = json.loads((ROOT / "docs/results/bench.json").read_text())["rows"]
    figure = Figure(figsize=(8.5, 3.6), layout="constrained")
    for axes, work in zip(figure.subplots(1, 2, sharey=True), TITLES, strict=True):
        panel(axes, [row for row in rows if row["work"] == work and row["batch_size"] == 10], TITLES[work])
    target = ROOT / "docs/figures/round_time.png"
    figure.savefig(target, dpi=150)
    print(target)


def panel(axes: Axes, rows: list[dict[str, Any]], title: str) -> None:
    """One kind of work: CPU milliseconds of a round by clients."""
    for system, (colour, marker, label) in STYLES.items():
        seconds = of_system(rows, system)
        axes.plot(
            list(seconds),
            [1e3 * value for value in seconds.values()],
            color=colour,
            marker=marker,
            label=label,
            linestyle="--" if system == "limit" else "-",
            linewidth=2.5 if system == "ours" else 1.5,
        )
    axes.set(xscale="log", yscale="log", xlabel="clients of a round", title=title, xticks=[10, 50, 200])
    axes.set_xticks([10, 50, 200], labels=["10", "50", "200"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    if title == TITLES["fedsgd"]:
        axes.set_ylabel("CPU milliseconds, one thread")
        axes.legend(frameon=False, fontsize=8)


def of_system(rows: list[dict[str, Any]], system: str) -> dict[int, float]:
    """CPU seconds by cohort; of fedbatch that of its fastest executor."""
    found: dict[int, float] = {}
    for row in sorted(rows, key=lambda row: row["cohort"]):
        if row["system"] == system or (system == "ours" and row["system"] in OURS):
            found[row["cohort"]] = min(found.get(row["cohort"], float("inf")), row["cpu_seconds"])
    return found


if __name__ == "__main__":
    main()
