"""Runs of a study: one folder for each config, so that a study goes on where it stopped."""

import hashlib
import io
import json
import math
import shlex
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import polars as pl
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from fedbatch.api import execute
from fedbatch.config.compose import config_json
from fedbatch.config.schema import parse
from fedbatch.core.errors import ConfigError


def run_once(runs: Path, options: list[str]) -> Path:
    """Run unless it is finished; a failure is left in the folder as error.txt, and the study goes on."""
    overrides = shlex.join([*options, "run_dir=."])
    try:
        config = json.loads(config_json({"overrides": overrides}))
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        return _failed(runs / _name(overrides), overrides, error)
    folder = runs / _name(json.dumps(config, sort_keys=True))  # of the whole config: a changed default is a new run
    if status(folder) == "finished":
        return folder
    shutil.rmtree(folder, ignore_errors=True)  # what a killed study left, its ledger too: the run starts over
    folder.mkdir(parents=True)
    try:
        with redirect_stdout(io.StringIO()):
            execute(parse(config | {"run_dir": str(folder)}))
    except Exception as error:  # whatever it is, the other runs are worth having
        return _failed(folder, overrides, error)
    return folder


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _failed(folder: Path, overrides: str, error: Exception) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "error.txt").write_text(f"{overrides}\n{type(error).__name__}: {error}\n")
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
