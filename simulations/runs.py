"""Runs of a study: one folder for each list of overrides, so that a study goes on where it stopped."""

import hashlib
import io
import json
import math
import shlex
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import polars as pl

from fedbatch import client_app, server_app
from fedbatch.compose import config_json
from fedbatch.runtime.local import run_locally


def run_once(runs: Path, options: list[str]) -> Path:
    """Run unless it is finished; a failure is left in the folder as error.txt, and the study goes on."""
    folder = runs / hashlib.sha256("\n".join(sorted(options)).encode()).hexdigest()[:12]
    if status(folder) == "finished":
        return folder
    shutil.rmtree(folder, ignore_errors=True)  # what a killed study left, its ledger too: the run starts over
    folder.mkdir(parents=True)
    try:
        config = config_json({"overrides": shlex.join([*options, f"run_dir={folder}"])})
        with redirect_stdout(io.StringIO()):
            run_locally(server_app.app, client_app.app, 1, {"config": config})
    except Exception as error:  # whatever it is, the other runs are worth having
        (folder / "error.txt").write_text(f"{shlex.join(options)}\n{type(error).__name__}: {error}\n")
    return folder


def status(folder: Path) -> str:
    """As in the run's summary; "failed" where there is none."""
    path = folder / "summary.json"
    return str(json.loads(path.read_text())["status"]) if path.is_file() else "failed"


def final(folder: Path, column: str) -> float:
    """The last value of a column, NaN for a run that failed."""
    if status(folder) != "finished":
        return math.nan
    return float(pl.read_parquet(folder / "rounds.parquet")[column][-1])
