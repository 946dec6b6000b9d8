"""The ways in which a run does not come to its end; each text is one line for people."""

from pathlib import Path


class ConfigError(ValueError):
    """A run cannot start as configured; the text names the field and the remedy."""


class RunFailedError(RuntimeError):
    """A run cannot go on; the text says why."""


class Interrupted(KeyboardInterrupt):
    """A signal has ended a run, or what comes before it.

    Attributes:
        signal: its number.
        folder: of the run, if it can go on from a checkpoint.
    """

    def __init__(self, signal: int, folder: Path | None = None):
        super().__init__(f"signal {signal}")
        self.signal, self.folder = signal, folder
