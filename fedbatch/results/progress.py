"""What a run shows while it goes: a progress bar in a terminal, plain lines elsewhere."""

import logging
import math
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from fedbatch.core.columns import seen_as

log = logging.getLogger("fedbatch")
PLAIN_LINES = 20


class Progress:
    """Progress of ``rounds`` rounds, the first ``done`` of them behind us; a context manager.

    Nothing is shown where logging of fedbatch is set to show warnings only.
    """

    def __init__(self, rounds: int, done: int):
        self._rounds = rounds
        is_quiet = log.level != logging.NOTSET and not log.isEnabledFor(logging.INFO)
        self._console = Console(markup=False, quiet=is_quiet)  # names of phases and folders are anybody's
        self._accuracy = math.nan
        self._bar = Bar(
            TextColumn("[bold]{task.fields[phase]:>6}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("accuracy {task.fields[accuracy]}  noise scale {task.fields[noise]}"),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("rounds", total=rounds, completed=done, phase="", accuracy="", noise="")

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, row: dict[str, Any]) -> None:
        """Show one round; a change of phase is always told, with its reason."""
        if not math.isnan(row["test_accuracy"]):
            self._accuracy = row["test_accuracy"]
        noise = f"{row[seen_as('noise_scale', row)]:.4g} {row['noise_scale_unit']}"
        accuracy = "-" if math.isnan(self._accuracy) else f"{self._accuracy:.3f}"
        self._bar.update(
            self._task, completed=row["rounds"], phase=escape(row["phase"]), accuracy=accuracy, noise=noise
        )
        if not self._console.is_terminal and row["rounds"] % max(1, self._rounds // PLAIN_LINES) == 0:
            self._console.print(
                f"round {row['rounds']:>5}/{self._rounds}  {row['phase']:<6} batch {row['global_batch']:>6}  "
                f"accuracy {accuracy}  noise scale {noise}",
                highlight=False,
                soft_wrap=True,
            )
        if row["switch"]:
            self._console.print(f"after round {row['rounds']}: {row['switch']}", highlight=False, soft_wrap=True)
