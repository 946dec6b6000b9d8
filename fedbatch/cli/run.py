"""One run from a checked config to its table and its picture."""

from pathlib import Path
from typing import Any

from rich.console import Console

from fedbatch.api import execute
from fedbatch.config.schema import RunConfig
from fedbatch.core.files import from_json
from fedbatch.core.scores import in_words, number, score_of
from fedbatch.core.visible import visible
from fedbatch.privacy.statement import headline
from fedbatch.results.figure import save_figure
from fedbatch.results.record import FILE, each_row, sample
from fedbatch.results.table import calibration_table, phase_table

DRAWN = 5_000
"""Rounds in the picture, about; it has a tenth as many points across."""


def run(config: RunConfig) -> dict[str, Any]:
    """Run where ``runtime`` says, show the table, and return the summary.

    Raises:
        ConfigError: the runtime is not there.
        RunFailedError: the run could not go on.
    """
    folder = Path(config.run_dir)
    execute(config)
    return report(folder)


def report(folder: Path) -> dict[str, Any]:
    """Draw the figure of a run that ended, show its table, and return its summary."""
    summary = from_json((folder / "summary.json").read_bytes())
    score = score_of(summary)
    save_figure(sample(folder / FILE, DRAWN), folder / "noise_scale.png", score)
    console = Console(markup=False)
    console.print(phase_table(each_row(folder / FILE), score))
    if (averaged := f"average_{score}") in summary:
        scores = f"{in_words(score)} {number(summary[averaged])}, loss {number(summary['average_test_loss'])}"
        console.print(f"averaged parameters: {scores} (evaluate and export take these)", highlight=False)
    if "calibration" in summary:
        console.print(calibration_table(summary["calibration"]))
    if "privacy" in summary:
        console.print(headline(summary["privacy"]), highlight=False, soft_wrap=True)
    console.print(f"run folder: {visible(folder)}", highlight=False, soft_wrap=True)
    return summary
