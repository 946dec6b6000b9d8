"""TensorBoard's event files, written as the run goes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fedbatch.core.find_columns import column
from fedbatch.trackers.following import Log, Row, need, scalars


class TensorBoard:
    """Scalars, histograms of what a row has many of (client norms, attention logits) and the config, as text.

    Args:
        every_rounds: write every so many rounds, and those that were evaluated.
    """

    def __init__(self, every_rounds: int = 1):
        if every_rounds < 1:
            raise ValueError(f"every_rounds must be at least 1 (got {every_rounds})")
        need("tensorboard", "tensorboard")
        self._every_rounds = every_rounds

    @contextmanager
    def following(self, folder: Path, config: Mapping[str, Any], from_round: int) -> Iterator[Log]:
        """Write to ``tensorboard`` in the run's folder; steps are rounds that are done."""
        from torch.utils.tensorboard import SummaryWriter

        # Of a resumed run, TensorBoard forgets what lies behind the checkpoint.
        purge = from_round + 1 if from_round else None
        writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)
        writer.add_text("config", f"```yaml\n{yaml.safe_dump(dict(config), sort_keys=False)}\n```")

        def write(row: Row) -> None:
            if row["rounds"] % self._every_rounds and row["test_loss"] != row["test_loss"]:
                return
            for name, value in scalars(row).items():
                writer.add_scalar(tag(name), value, row["rounds"])
            for name, value in row.items():
                if isinstance(value, list):
                    writer.add_histogram(tag(name), np.ravel(value), row["rounds"])
            if row["switch"]:
                writer.add_text("switch", row["switch"], row["rounds"])
            writer.flush()

        try:
            yield write
        finally:
            writer.close()


def tag(name: str) -> str:
    """The name under which TensorBoard groups a column.

    >>> [tag(name) for name in ("test_loss", "client_seconds", "noise_scale_low", "lr")]
    ['test/test_loss', 'seconds/client_seconds', 'noise/noise_scale_low', 'round/lr']
    """
    known = column(name)
    return f"{known.group if known else 'round'}/{name}"
