"""Other runs beside the one that predicts: when they passed the same losses."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbatch.core.errors import ConfigError
from fedbatch.results.critical import Critical
from fedbatch.results.critical_rows import Record, curve_of, read
from fedbatch.results.folder import config_values, leaves
from fedbatch.results.load import run_folders

log = logging.getLogger("fedbatch")
Floats = npt.NDArray[np.float64]
TASK = ("dataset", "model", "loss")
"""Keys that runs must share for their losses to be comparable."""
VARIED = ("seed", "run_dir", "rounds")
"""Ends of keys in which runs of the same settings may differ."""


@dataclass(frozen=True)
class Point:
    """What runs of one batch needed, at the best of their settings.

    Attributes:
        batch: examples of a round, the mean over runs; in the first phase, where it changed.
        cohort: clients of a round, likewise.
        runs: how many there are.
        rounds: to each goal of the run that predicts, the mean over seeds, and the fewest over other settings such as
            the learning rate; NaN where none got there.
        predicted: what that run says of this batch; NaN where it changed.
    """

    batch: float
    cohort: float
    runs: int
    rounds: tuple[float, ...]
    predicted: tuple[float, ...]


def points(found: Critical, folders: Sequence[Path]) -> list[Point]:
    """When runs passed the goals of ``found``, by batch and cohort, rising; unusable records are named and left out.

    Raises:
        ConfigError: a run has another task or another column of the loss.
    """
    shapes: dict[tuple[float, float, bool], list[tuple[float, float]]] = {}
    groups: dict[tuple[float, float, bool], dict[str, list[Floats]]] = {}
    for folder in folders:
        config = config_values(folder)
        try:
            record = read(folder)
        except ConfigError as error:  # a run that broke off at once, in a sweep of rates, must not hide the others
            log.warning("left out: %s", error)
            continue
        rounds = _rounds(found, folder, record, config)
        settings = str(sorted((key, str(value)) for key, value in leaves(config) if not key.endswith(VARIED)))
        batch, cohort = record.cohort * record.client_batch, record.cohort
        key = round(batch), round(cohort), record.is_fixed  # they may be drawn, and differ a little
        shapes.setdefault(key, []).append((batch, cohort))
        groups.setdefault(key, {}).setdefault(settings, []).append(rounds)
    return [_point(found, shapes[key], key[-1], list(groups[key].values())) for key in sorted(groups)]


def _rounds(found: Critical, folder: Path, record: Record, config: Mapping[str, Any]) -> Floats:
    task = config_values(found.run)
    if other := [name for name in TASK if config.get(name) != task.get(name)]:
        raise ConfigError(f"{folder}: another {other[0]} than {found.run}, so that their losses are not comparable")
    if (record.unit == "clients") != math.isnan(found.drift):
        raise ConfigError(f"{folder}: local steps in it or in {found.run}, but not in both")
    if record.loss != found.loss:
        raise ConfigError(
            f"{folder}: its losses are {record.loss}, and those of {found.run} {found.loss}; give runs with the same "
            "training_set_examples"
        )
    try:
        falling = curve_of(folder, record).falling()
    except ConfigError:  # it never falls, and that is its result
        return np.full(len(found.goals), np.nan)
    return np.array([falling.steps_to(goal.loss) for goal in found.goals])


def _point(found: Critical, shapes: list[tuple[float, float]], is_fixed: bool, settings: list[list[Floats]]) -> Point:
    batch, cohort = np.mean(shapes, axis=0).tolist()
    means = np.array([np.mean(rounds, axis=0) for rounds in settings])
    fewest = np.where(np.isnan(means), np.inf, means).min(axis=0)
    rounds = tuple(float(value) if value < math.inf else math.nan for value in fewest)
    clients = batch / found.client_batch if math.isnan(found.drift) else cohort  # only clients differ after local steps
    told = (found.predict(batch, clients, goal).rounds if is_fixed else math.nan for goal in found.goals)
    return Point(batch, cohort, len(shapes), rounds, tuple(told))


def in_order(paths: Sequence[Path]) -> list[Path]:
    """All runs at or below the paths, the one that predicts in front.

    That is the first path, or, where it is a folder of several runs, that with the smallest batch; of those, with the
    lowest loss, so that a rate which does not suit the batch is passed over.

    Raises:
        ConfigError: a path without a run.
    """
    found = {}
    for path in paths:
        try:
            found[path] = run_folders(path)
        except FileNotFoundError as error:
            raise ConfigError(str(error)) from error
    folders = list(dict.fromkeys(folder for each in found.values() for folder in each))
    first = found[paths[0]]
    chosen = first[0] if len(first) == 1 else min(first, key=_batch_and_loss)
    return [chosen, *(folder for folder in folders if folder != chosen)]


def _batch_and_loss(folder: Path) -> tuple[float, float]:
    try:
        record = read(folder)
        return record.cohort * record.client_batch, float(curve_of(folder, record).losses.min())
    except ConfigError:
        return float("inf"), float("inf")
