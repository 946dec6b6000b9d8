"""What a run shows while it goes: a progress bar in a terminal, plain lines elsewhere."""

import logging
import math
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from fedbatch.core.find_columns import seen_as
from fedbatch.core.scores import Scoring, in_words, number
from fedbatch.core.visible import visible

log = logging.getLogger("fedbatch")
PLAIN_LINES = 20
ACCURACY = Scoring()


class Progress:
    """Progress of ``rounds`` rounds, the first ``done`` of them behind us; a context manager.

    Nothing is shown where logging of fedbatch is set to show warnings only.
    """

    def __init__(self, rounds: int, done: int, scoring: Scoring = ACCURACY):
        self._rounds, self._column = rounds, f"test_{scoring.score}"
        self._name = in_words(self._column)
        is_quiet = log.level != logging.NOTSET and not log.isEnabledFor(logging.INFO)
        self._console = Console(markup=False, quiet=is_quiet)  # names of phases and folders are anybody's
        self._score, self._scored = math.nan, 0
        self._bar = Bar(
            TextColumn("[bold]{task.fields[phase]:>6}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[score]}  noise scale {task.fields[noise]}"),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("rounds", total=rounds, completed=done, phase="", score=self._name, noise="")

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, row: dict[str, Any]) -> None:
        """Show one round; a change of phase is always told, with its reason."""
        if not math.isnan(row[self._column]):
            self._score, self._scored = row[self._column], row["rounds"]
        noise = f"{row[seen_as('noise_scale', row)]:.4g} {row['noise_scale_unit']}"
        score = f"{self._name} {'-' if math.isnan(self._score) else number(self._score)}"
        self._bar.update(
            self._task, completed=row["rounds"], phase=escape(visible(row["phase"])), score=score, noise=noise
        )
        if not self._console.is_terminal and row["rounds"] % max(1, self._rounds // PLAIN_LINES) == 0:
            earlier = f" (round {self._scored})" if 0 < self._scored < row["rounds"] else ""
            self._console.print(
                f"round {row['rounds']:>5}/{self._rounds}  {visible(row['phase']):<6} batch {row['global_batch']:>6}  "
                f"{score}{earlier}  noise scale {noise}",
                highlight=False,
                soft_wrap=True,
            )
        if row["switch"]:
            self._console.print(
                f"after round {row['rounds']}: {visible(row['switch'])}", highlight=False, soft_wrap=True
            )
