"""Buffered asynchronous aggregation (Nguyen et al. 2022, arXiv 2106.06639): how many work, and what is too late."""

from dataclasses import dataclass

from fedbatch.asynchronous.staleness import Staleness


@dataclass(frozen=True)
class FedBuff:
    """The server steps whenever a buffer of K updates is full, and sends its new model to who takes their places.

    Attributes:
        concurrency: clients at work at a time, in buffers; at least 1.
        max_staleness: steps by which an update may be late; who is later is given up, and its place goes to another.
        staleness: factors on weights.
    """

    concurrency: float
    max_staleness: int
    staleness: Staleness

    def at_work(self, buffer: int) -> int:
        """Clients at work at a time with buffers of ``buffer`` updates, never fewer than these."""
        return max(buffer, round(self.concurrency * buffer))
