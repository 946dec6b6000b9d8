"""The part of each client's examples that it keeps for its own evaluation."""

from dataclasses import dataclass

import numpy as np

from fedbatch.core.random import Ints
from fedbatch.data.partition import Partition


@dataclass(frozen=True)
class HoldoutPartition:
    """A partition whose clients keep ``fraction`` of their examples back, spread evenly over the order of the data.

    Evenly, because the end of a file may be of other writers or of a later time than what is trained on, and a
    temperature or an accuracy measured there would be of something else.

    Attributes:
        whole: the partition of the training set.
        fraction: in [0, 1); a client of n examples holds out ``floor(fraction * n)``.
    """

    whole: Partition
    fraction: float

    def __len__(self) -> int:
        return len(self.whole)

    def sizes(self, clients: Ints) -> Ints:
        """Number of examples of each client to train on."""
        sizes = self.whole.sizes(clients)
        return sizes - np.floor(self.fraction * sizes).astype(np.int64)

    def lookup(self, clients: Ints, slots: Ints) -> Ints:
        """Positions in the training set of examples to train on; ``slots`` are below ``sizes(clients)``."""
        if not self.fraction:
            return self.whole.lookup(clients, slots)
        kept = self.sizes(clients)
        held = self.whole.sizes(clients) - kept
        return self.whole.lookup(clients, slots + slots * held // np.maximum(kept, 1))  # skips those held out before

    def held_out(self, client: int) -> Ints:
        """Positions of the examples that ``client`` holds out."""
        clients = np.array([client])
        kept = int(self.sizes(clients)[0])
        held = int(self.whole.sizes(clients)[0]) - kept
        after = -(-np.arange(1, held + 1) * kept // max(held, 1))  # the k-th comes after a share k / held of the kept
        return self.whole.lookup(clients, after + np.arange(held))


def spread_evenly(partition: HoldoutPartition, count: int) -> Ints:
    """Positions of at most ``count`` examples to train on, always the same ones, spread evenly over all clients'."""
    ends = np.cumsum(partition.sizes(np.arange(len(partition), dtype=np.int64)))
    count = min(count, int(ends[-1]))
    chosen = np.arange(count, dtype=np.int64) * int(ends[-1]) // count
    owners = np.searchsorted(ends, chosen, side="right")
    return partition.lookup(owners, chosen - np.append(0, ends)[owners])
