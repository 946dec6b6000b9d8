"""A node with data of its own: its clients share what lies in its folder, instead of a part of one common set."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedbatch.core.random import Ints
from fedbatch.data.dataset import Dataset
from fedbatch.data.partition import Partition


@dataclass(frozen=True)
class OwnClients:
    """Clients ``first`` and following of a population, over a data set that is theirs alone; see Partition.

    Attributes:
        own: partition of the data set among them, from 0.
        first: id of the first of them in the population.
        population: clients in all.
    """

    own: Partition
    first: int
    population: int

    def __len__(self) -> int:
        return self.population

    def sizes(self, clients: Ints) -> Ints:
        """Number of examples; for clients elsewhere, unknown here, the nearest own one stands for them."""
        return self.own.sizes(np.clip(clients - self.first, 0, len(self.own) - 1))

    def lookup(self, clients: Ints, slots: Ints) -> Ints:
        """See Partition; a client that lives elsewhere is an IndexError."""
        return self.own.lookup(clients - self.first, slots)


def own_clients(
    dataset: Dataset, *, partitioner: Callable[[Dataset], Partition], first: int, count: int, population: int
) -> OwnClients:
    """Divide ``dataset`` among ``count`` clients, the ``first`` and following of a ``population``.

    Raises:
        ValueError: the partitioner finds another number of clients.
    """
    own = partitioner(dataset)
    if len(own) != count:
        raise ValueError(f"partitioner: this node hosts {count} clients, but its data has {len(own)}")
    return OwnClients(own, first, population)
