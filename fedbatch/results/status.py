"""``fedbatch status FOLDER``: which runs are done, under way or broken, and how to go on."""

import time
from pathlib import Path

from rich.table import Table
from rich.text import Text

from fedbatch.core.scores import in_words, number, score_of
from fedbatch.core.visible import visible
from fedbatch.results.folder import summary_of
from fedbatch.results.load import run_folders

QUIET_SECONDS = 300.0
"""A run that says it is running and has written nothing for so long was probably killed."""


def status_table(path: str | Path) -> Table:
    """A line for each run at or below ``path``: status, rounds done, and the error or the command to go on with.

    Raises:
        FileNotFoundError: there is no run.
    """
    table = Table()
    folders = run_folders(path)
    scores = {score_of(summary_of(folder)) for folder in folders}
    for name in ("run", "status", "rounds", in_words(*scores) if len(scores) == 1 else "score", ""):
        table.add_column(name, overflow="fold")
    for folder in folders:
        summary = summary_of(folder)
        kind = state(folder)
        score = summary.get(score_of(summary))
        remark = summary.get("error", "")
        if kind in ("killed", "interrupted", "failed") and any((folder / "checkpoints").glob("*")):
            remark = f"{remark}; " if remark else ""
            remark += f"fedbatch resume={folder}"
        shown = number(score) if isinstance(score, float) and score == score else ""
        if shown and len(scores) > 1:
            shown = f"{in_words(score_of(summary))} {shown}"
        cells = (folder, kind, rounds_done(folder), shown, remark)
        table.add_row(*(Text(visible(cell)) for cell in cells))  # what others wrote is no markup
    return table


def state(folder: Path) -> str:
    """What the summary says: finished, failed, interrupted, running; or "killed": it says running and is not."""
    said = str(summary_of(folder)["status"])
    if said != "running":
        return said
    record = folder / "rounds.jsonl"
    written = max(file.stat().st_mtime for file in (folder / "summary.json", record) if file.exists())
    return "running" if time.time() - written < QUIET_SECONDS else "killed"


def rounds_done(folder: Path) -> int:
    """Rounds in the record."""
    record = folder / "rounds.jsonl"
    return record.read_bytes().count(b"\n") if record.exists() else 0
