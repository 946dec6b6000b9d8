"""Other runs beside the one that predicts: when they passed the same losses."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedbatch.errors import ConfigError
from fedbatch.results.critical import Critical
from fedbatch.results.critical_rows import curve_of, read
from fedbatch.results.folder import config_values
from fedbatch.results.load import run_folders

TASK = ("dataset", "model", "loss", "client_work")
"""Keys that runs must share for their losses to be comparable."""


@dataclass(frozen=True)
class Point:
    """What another run needed.

    Attributes:
        run: its folder.
        batch: examples of a round, in its first phase.
        rounds: to each goal of the run that predicts; NaN where it did not get there.
        predicted: what that run says of this batch; NaN where the batch changed.
    """

    run: Path
    batch: float
    rounds: tuple[float, ...]
    predicted: tuple[float, ...]


def points(found: Critical, folders: Sequence[Path]) -> Iterator[Point]:
    """When other runs passed the goals of ``found``.

    Raises:
        ConfigError: a run has another task or another column of the loss, or cannot be read.
    """
    task = config_values(found.run)
    for folder in folders:
        record, config = read(folder), config_values(folder)
        if other := [name for name in TASK if config.get(name) != task.get(name)]:
            raise ConfigError(f"{folder}: another {other[0]} than {found.run}, so that their losses are not comparable")
        if record.loss != found.loss:
            raise ConfigError(
                f"{folder}: its losses are {record.loss}, and those of {found.run} {found.loss}; give runs with the "
                "same training_set_examples"
            )
        try:
            falling = curve_of(folder, record).falling()
            rounds = tuple(falling.steps_to(goal.loss) for goal in found.goals)
        except ConfigError:  # it never falls, and that is its result
            rounds = (math.nan,) * len(found.goals)
        batch = record.cohort * record.client_batch
        cohort = record.cohort if found.unit == "examples" else batch / found.client_batch
        told = (found.predict(batch, cohort, goal).rounds if record.is_fixed else math.nan for goal in found.goals)
        yield Point(folder, batch, rounds, tuple(told))


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
