"""The part of each client's examples that it keeps for its own evaluation."""

from dataclasses import dataclass

import numpy as np

from fedbatch.data.partition import Partition
from fedbatch.keys import Ints


@dataclass(frozen=True)
class HoldoutPartition:
    """A partition whose clients train on all but the last ``fraction`` of their examples, in the order of the data.

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
        """Positions in the training set; slots below ``sizes(clients)`` are for training."""
        return self.whole.lookup(clients, slots)

    def held_out(self, client: int) -> Ints:
        """Positions of the examples that ``client`` holds out."""
        clients = np.array([client])
        slots = np.arange(int(self.sizes(clients)[0]), int(self.whole.sizes(clients)[0]))
        return self.whole.lookup(clients, slots)
