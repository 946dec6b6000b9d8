"""The command line and the result files that all studies share."""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import polars as pl

from fedbatch.report.page import announcement, write_report

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Study:
    """What the command line asked for.

    Attributes:
        name: of the study, its runs and its results.
        quick: the small form.
        runs: folder of the runs; those that are finished are skipped.
        out: folder of the results, with ``results`` and ``figures`` in it.
        jobs: processes, of one thread each.
        device: of the runs.
    """

    name: str
    quick: bool
    runs: Path
    out: Path
    jobs: int
    device: str = "cpu"

    def rows(self, cells: Sequence[Callable[[], list[dict[str, Any]]]]) -> list[dict[str, Any]]:
        """Rows of all cells in their order, measured side by side; a cell is a function of a module or its partial."""
        if self.jobs == 1:
            return [row for cell in cells for row in cell()]
        with ProcessPoolExecutor(self.jobs, get_context("spawn"), initializer=_one_thread) as pool:
            return [row for rows in pool.map(_call, cells) for row in rows]

    def save(self, rows: pl.DataFrame, suffix: str = "") -> None:
        """Write ``rows`` as results/NAME.parquet."""
        rows.write_parquet(self.out / "results" / f"{self.name}{suffix}.parquet")

    def tell(self, text: str) -> None:
        """Write the tables as results/NAME.md, and print them."""
        (self.out / "results" / f"{self.name}.md").write_text(text)
        print(text)

    def figure(self, suffix: str = "") -> Path:
        """Path of figures/NAME.png."""
        return self.out / "figures" / f"{self.name}{suffix}.png"


@contextmanager
def command(
    name: str,
    summary: str,
    quick: str,
    arguments: Sequence[str] | None,
    side_by_side: bool = False,
    anywhere: bool = False,
) -> Iterator[Study]:
    """Read ``--quick``, ``--runs``, ``--out`` and ``--report``; at the end, a page on all runs.

    The quick form leaves nothing behind unless told where.

    Args:
        name: of the study.
        summary: first line of the help.
        quick: what the quick form is.
        arguments: of the command line; None takes the process's own.
        side_by_side: the study measures `Study.rows`, so that ``--jobs`` is read too.
        anywhere: its runs take `Study.device`, so that ``--device`` is read too.
    """
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--runs", type=Path, help=f"folder of the runs (default runs/{name}; quick: temporary)")
    parser.add_argument("--out", type=Path, help="folder of the results (default docs; quick: temporary)")
    if side_by_side:
        parser.add_argument("--jobs", type=int, help="runs side by side (default: as many as cores; quick: one)")
    if anywhere:
        parser.add_argument("--device", help="of the runs: cpu, cuda (default cpu)")
    parser.set_defaults(jobs=None, device=None)
    parser.add_argument(
        "--report",
        choices=("html", "none"),
        default="html",
        help="page on all runs in their folder, those of the search for learning rates too",
    )
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) if given.quick else ROOT
        runs, out = given.runs or home / "runs" / name, given.out or home / "docs"
        for folder in ("results", "figures"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        yield Study(
            name,
            given.quick,
            runs,
            out,
            given.jobs or (1 if given.quick else os.cpu_count() or 1),
            given.device or "cpu",
        )
        if given.report == "html" and (given.runs or not given.quick) and any(runs.glob("*/summary.json")):
            print(announcement(write_report([runs])))


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _call(cell: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return cell()
