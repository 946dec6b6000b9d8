"""The report at the end of a run or a sweep, however it ends."""

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from fedbatch.config.trust import named

_begun: list[tuple[Path, list[str]]] = []
_sweeps: list[Path] = []


class ReportAtEnd(Callback):
    """Notes where a run or a sweep begins, unless ``report=none``, for `write_reports`.

    Hydra tells its callbacks nothing of a run that fails or is interrupted, and just then the picture is wanted.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Note the folder of a single run, whose name has the time in it."""
        _note(config, config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Note the folder of a sweep: its runs share one page, and a table in the terminal."""
        _sweeps.append(Path(config.hydra.sweep.dir))
        _note(config, config.hydra.sweep.dir)


def write_reports() -> None:
    """Write the page of what has begun in this process and say where it is; nothing where no run got so far."""
    ended_badly = sys.exc_info()[0] is not None
    while _sweeps:
        tell(_sweeps.pop())
    while _begun:
        folder, own = _begun.pop()
        if any(folder.rglob("summary.json")):
            from fedbatch.report.page import announcement, write_report

            try:
                print(announcement(write_report([folder], trust=own)))
            except OSError as error:  # the run itself is safe; what ended it badly was told
                if not ended_badly:
                    print(f"fedbatch: {folder}: no report: {error.strerror}", file=sys.stderr)


def tell(folder: Path) -> None:
    """Print the table of a sweep and a line for each run that has not finished."""
    from rich.console import Console

    from fedbatch.results.sweep_table import sweep_table, unfinished_lines

    if (table := sweep_table(folder)) is not None:
        Console(markup=False).print(table)
        for line in unfinished_lines(folder):
            print(line)


def forget() -> None:
    """Write no page: the run was refused, and what lies in its folder may be of another."""
    _begun.clear()
    _sweeps.clear()


def _note(config: DictConfig, folder: str) -> None:
    if config.report != "none":
        _begun.append((Path(folder), named(OmegaConf.to_container(config))))
