"""``fedbatch spent FOLDER``: what private runs on the same data have spent together.

A run's own epsilon says nothing of the runs beside it. Whoever sees them all, or one that was chosen among them by its
scores, has seen every release of every run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from fedbatch.core.errors import ConfigError
from fedbatch.core.visible import visible
from fedbatch.privacy import accounting, ledger
from fedbatch.privacy.accounting import PhaseSpec
from fedbatch.privacy.best_of import epsilon_of_best
from fedbatch.privacy.ledger import Ledger
from fedbatch.results.folder import summary_of

MOST_RUNS = 1_000
"""Folders beyond which the table shows the last ones alone."""


@dataclass(frozen=True)
class Spent:
    """What one ledger says.

    Attributes:
        file: the ledger, of a run or of one that was overwritten.
        phases: what its costliest client spent, at most.
        epsilon: of these, or the budget where phases were chosen by what was released.
        accountant: by which epsilon is, "auto" or that of noise for which less is proven.
        budget: whether epsilon is a budget, which no composition of phases can stand for.
        delta: of the run.
        unit: "example" or "client".
    """

    file: Path
    phases: list[PhaseSpec]
    epsilon: float
    accountant: str
    budget: bool
    delta: float
    unit: str


def spent(folders: Sequence[str | Path]) -> list[Spent]:
    """Every ledger at or below the folders, those of runs that were overwritten too.

    Raises:
        ConfigError: there is none, or one cannot be read.
    """
    files = sorted({file for folder in folders for file in Path(folder).rglob("ledger*.jsonl")})
    if not files:
        raise ConfigError(f"no private run in {', '.join(map(str, folders))}; a private run's folder has {ledger.FILE}")
    return [_of(file) for file in files]


def _of(file: Path) -> Spent:
    releases = ledger.peek(file)
    accounts = 1 + max((client for release in releases for client in release.clients or ()), default=0)
    phases = Ledger.of(accounts, releases).most()
    said = summary_of(file.parent).get("privacy", {})
    delta, is_budget = float(said.get("delta", 1e-5)), "filter" in said.get("accountant", "")
    accountant = accounting.WHOLE if said.get("accountant") == accounting.WHOLE else "auto"
    epsilon = float(said["epsilon"]) if is_budget else accounting.epsilon(phases, delta, accountant)
    return Spent(file, phases, epsilon, accountant, is_budget, delta, str(said.get("unit", "unit")))


def together(runs: Sequence[Spent]) -> tuple[float, float]:
    """Epsilon and delta of all runs, if every release of each was seen; at most.

    Budgets are added up, with their deltas; all other releases are composed.
    """
    composed = [phase for run in runs if not run.budget for phase in run.phases]
    budgets = [run for run in runs if run.budget]
    delta = max(run.delta for run in runs)
    accountant = accounting.WHOLE if any(run.accountant == accounting.WHOLE for run in runs) else "auto"
    epsilon = accounting.epsilon(composed, delta, accountant) + sum(run.epsilon for run in budgets)
    return epsilon, delta * bool(composed) + sum(run.delta for run in budgets)


def spent_table(runs: Sequence[Spent]) -> Table:
    """A line for each ledger."""
    table = Table()
    for name in ("ledger", "level", "releases", "epsilon", "delta"):
        table.add_column(name, overflow="fold", justify="left" if name in ("ledger", "level") else "right")
    for run in runs[-MOST_RUNS:]:
        steps = sum(steps for _, _, steps in run.phases)
        cells = (visible(run.file), run.unit, f"{steps:,}", f"{run.epsilon:.3g}", f"{run.delta:.2g}")
        table.add_row(*map(Text, cells))
    return table


def sentences(runs: Sequence[Spent]) -> list[str]:
    """What the runs mean together, in words."""
    epsilon, delta = together(runs)
    who = f"All {len(runs)} together" if len(runs) > 1 else "This run"
    said = [
        f"{who}: epsilon at most {epsilon:.3g} at delta {delta:.2g}, if all are on the same data and anybody sees them "
        "all, or one that was chosen among them by scores on these data."
    ]
    if len({run.unit for run in runs}) > 1:
        said.append("They protect different units; the number is of the weaker promise, that of single examples.")
    if len(runs) > 1 and not any(run.budget or run.accountant == accounting.WHOLE for run in runs):
        costliest = max(runs, key=lambda run: run.epsilon)
        best = epsilon_of_best(costliest.phases, len(runs), delta)
        if best < epsilon:
            said.append(
                f"If the best alone is released: epsilon {best:.3g}, but only where the number of runs was drawn "
                f"beforehand from a geometric distribution with mean {len(runs)} and is secret; a sweep of a fixed "
                "size has no such bound."
            )
    return said
