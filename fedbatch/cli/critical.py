"""``fedbatch critical RUN...``: what one run says of the batch size, on the terminal and as a picture."""

import math
from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fedbatch.cli.arguments import Arguments
from fedbatch.core.errors import ConfigError
from fedbatch.core.visible import visible
from fedbatch.results.critical import Critical, critical
from fedbatch.results.critical_figure import save_critical_figure
from fedbatch.results.critical_points import in_order, points
from fedbatch.results.critical_table import agreement, costs_table, goals_table, ladder, points_table, sentences

FIGURE = "critical.png"


def main(arguments: Sequence[str], trust: Sequence[str] = ()) -> None:
    """Print what the runs say and draw it.

    Raises:
        ConfigError: they say nothing, or an argument is wrong.
    """
    given = _parser().parse_args(arguments)
    first, *others = in_order([Path(run) for run in given.runs])
    found = critical(first, sorted(set(given.loss), reverse=True) if given.loss else None, trust)
    batches = _batches(found, given.batches, given.cohorts)
    measured = points(found, [first, *others]) if others else []
    console = Console()
    console.print(goals_table(found))
    console.print(costs_table(found, batches))
    if measured:
        console.print(points_table(found, measured))
    for line in (*sentences(found), *agreement(found, measured)):
        console.print(visible(line), highlight=False, markup=False, soft_wrap=True)
    for doubt in found.doubts:
        console.print(f"warning: {visible(doubt)}", style="bold", highlight=False, markup=False, soft_wrap=True)
    save_critical_figure(found, batches, measured, first / FIGURE)
    console.print(f"picture: {visible(first / FIGURE)}", highlight=False, markup=False, soft_wrap=True)


def _parser() -> Arguments:
    parser = Arguments("critical")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the run that predicts, and others to set beside it")
    parser.add_argument("--loss", type=float, action="append", help="a training loss to get to; may be given again")
    parser.add_argument("--batches", type=_numbers, help="global batches, e.g. 16,64,256")
    parser.add_argument("--cohorts", type=_numbers, help="numbers of clients instead, e.g. 8,32")
    return parser


def _numbers(text: str) -> list[float]:
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = [0.0]
    if not all(0 < number < float("inf") for number in numbers):
        raise ArgumentTypeError(f"give positive numbers, e.g. 16,64,256 (got {text!r})")
    return numbers


def _batches(found: Critical, batches: list[float] | None, cohorts: list[float] | None) -> list[float]:
    if batches and math.isnan(found.drift):
        raise ConfigError(f"--batches: {found.run} has local steps, and is counted in clients; give --cohorts")
    chosen = [*(batches or []), *(cohort * found.client_batch for cohort in cohorts or [])]
    return sorted(chosen) or ladder(found)
