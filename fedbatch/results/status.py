"""``fedbatch status FOLDER``: which runs are done, under way or broken, and how to go on."""

import time
from pathlib import Path

from rich.table import Table
from rich.text import Text

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
    for name in ("run", "status", "rounds", "accuracy", ""):
        table.add_column(name, overflow="fold")
    for folder in run_folders(path):
        summary = summary_of(folder)
        kind = state(folder)
        accuracy = summary.get("test_accuracy")
        remark = summary.get("error", "")
        if kind in ("killed", "interrupted", "failed") and any((folder / "checkpoints").glob("*")):
            remark = f"{remark}; " if remark else ""
            remark += f"fedbatch resume={folder}"
        shown = f"{accuracy:.3f}" if isinstance(accuracy, float) and accuracy == accuracy else ""
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
