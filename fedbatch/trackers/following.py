"""What a tracker is, and all of a run's at once."""

import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

Row = Mapping[str, Any]
Log = Callable[[Row], None]

log = logging.getLogger("fedbatch")


class Tracker(Protocol):
    """One file and one YAML, as ``fedbatch.trackers.tensorboard.TensorBoard``."""

    def following(self, folder: Path, config: Mapping[str, Any], from_round: int) -> AbstractContextManager[Log]:
        """Open for one run and give what takes its rows; ``from_round`` is where a resumed run goes on."""
        ...


@contextmanager
def following(
    trackers: Mapping[str, Tracker], folder: Path, config: Mapping[str, Any], from_round: int
) -> Iterator[Log]:
    """One function that hands each row to all trackers. One that fails is named and left out; the run goes on."""
    logs: dict[str, Log] = {}
    opened: dict[str, AbstractContextManager[Log]] = {}
    for name, tracker in trackers.items():
        with telling(name):
            context = tracker.following(folder, config, from_round)
            logs[name] = context.__enter__()
            opened[name] = context

    def tell_all(row: Row) -> None:
        for name in list(logs):
            told = logs.pop(name)
            with telling(name):
                told(row)
                logs[name] = told

    try:
        yield tell_all
    finally:
        for name, context in opened.items():
            with telling(name):
                context.__exit__(*sys.exc_info())  # a dashboard shows a failed run as failed


@contextmanager
def telling(name: str) -> Iterator[None]:
    """Turn whatever a tracker raises into a warning."""
    try:
        yield
    except Exception as error:  # a dashboard that is away must not cost a run
        reason = (str(error) or type(error).__name__).splitlines()[0]
        log.warning("tracker.%s: %s; the run goes on without it", name, reason)


def scalars(row: Row) -> dict[str, float]:
    """The numbers of a row that are numbers.

    >>> scalars({"round": 3, "test_loss": float("nan"), "phase": "small", "lr": 0.1, "attention_logit_max": [[1.0]]})
    {'round': 3.0, 'lr': 0.1}
    """
    found = {name: float(value) for name, value in row.items() if isinstance(value, int | float)}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def need(package: str, extra: str) -> None:
    """Refuse a tracker whose package is not there.

    Raises:
        ValueError: with the command that installs it.
    """
    if find_spec(package) is None:
        raise ValueError(f"{package} is not installed; pip install 'fedbatch[{extra}]'")
