"""Weights & Biases, offline by default; ``wandb sync`` sends it later."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedbatch.trackers.following import Log, Row, need, scalars


class WandB:
    """Logs below the run's folder.

    Args:
        mode: ``offline`` writes files only; ``online`` sends as it goes.
        project: its name at Weights & Biases.
    """

    def __init__(self, mode: str = "offline", project: str = "fedbatch"):
        if mode not in ("offline", "online"):
            raise ValueError(f"mode must be offline or online (got {mode!r})")
        need("wandb", "wandb")
        self._mode, self._project = mode, project

    @contextmanager
    def following(self, folder: Path, config: Mapping[str, Any], from_round: int) -> Iterator[Log]:
        """One run of Weights & Biases, named after the run's folder; steps are rounds that are done."""
        import wandb

        with wandb.init(
            project=self._project,
            name=folder.name,
            dir=str(folder),
            config={**config, "from_round": from_round},
            mode=self._mode,
            settings=wandb.Settings(silent=True),
        ) as run:

            def write(row: Row) -> None:
                run.log(scalars(row), step=row["rounds"])

            yield write
