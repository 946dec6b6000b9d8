"""What the server asks of a way to average."""

from typing import Protocol


class Averaging(Protocol):
    """Says how much the parameters after a round weigh."""

    def weight(self, round_: int, batches: float) -> float:
        """Weight in (0, 1] after round ``round_``, from 0, with ``batches`` times the first phase's global batch."""
        ...
