"""One run from a checked config to its table and its picture."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from fedbatch import client_app, server_app
from fedbatch.build import build
from fedbatch.config import RunConfig
from fedbatch.privacy.statement import headline
from fedbatch.results.figure import save_figure
from fedbatch.results.store import read_rows
from fedbatch.results.table import calibration_table, phase_table


def run(config: RunConfig) -> dict[str, Any]:
    """Run where ``runtime`` says, show the table, and return the summary.

    Raises:
        ConfigError: the runtime is not there.
        RunFailedError: the run could not go on.
    """
    folder = Path(config.run_dir)
    runtime = build("runtime", config.runtime)
    runtime(server_app.app, client_app.app, config.nodes, {"config": config.to_json()})
    return report(folder)


def report(folder: Path) -> dict[str, Any]:
    """Draw the figure of a run that ended, show its table, and return its summary."""
    rows = read_rows(folder / "rounds.jsonl")
    save_figure(rows, folder / "noise_scale.png")
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    console = Console()
    console.print(phase_table(rows))
    if "calibration" in summary:
        console.print(calibration_table(summary["calibration"]))
    if "privacy" in summary:
        console.print(headline(summary["privacy"]), highlight=False, soft_wrap=True)
    console.print(f"run folder: {folder}", highlight=False, soft_wrap=True)
    return summary
