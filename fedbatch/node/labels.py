"""What a node keeps between messages: which examples its clients have labelled, their clusters and scores.

It stays on the node, in files of its own; the server never sees it. One file a query, so that a run that goes on from
an earlier checkpoint finds the labels as they were then.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedbatch.core.errors import ConfigError
from fedbatch.core.random import Ints
from fedbatch.data.partition import Partition


@dataclass(frozen=True)
class LabelledPartition:
    """The labelled part of a partition, for the clients of one node; see Partition.

    Attributes:
        whole: the partition.
        clients: int64 (K,) ids, ascending.
        offsets: int64 (K + 1,), where each client begins in ``slots``.
        slots: int64 (labels,) slots of ``whole``, ascending within a client.
    """

    whole: Partition
    clients: Ints
    offsets: Ints
    slots: Ints

    @classmethod
    def of(cls, whole: Partition, clients: Ints, owners: Ints, slots: Ints) -> "LabelledPartition":
        """From labels in any order, ``slots[i]`` of client ``owners[i]``."""
        order = np.lexsort([slots, owners])
        offsets = np.append(np.searchsorted(owners[order], clients), len(owners))
        return cls(whole, clients, offsets, slots[order])

    def __len__(self) -> int:
        return len(self.whole)

    def sizes(self, clients: Ints) -> Ints:
        """Labels of each client; 0 for one of another node."""
        rows = self._rows(clients)
        return np.where(self.clients[rows] == clients, self.offsets[rows + 1] - self.offsets[rows], 0)

    def lookup(self, clients: Ints, slots: Ints) -> Ints:
        """See Partition; slots count labelled examples only."""
        return self.whole.lookup(clients, self.slots[self.offsets[self._rows(clients)] + slots])

    @property
    def owners(self) -> Ints:
        """int64 (labels,), the client of each."""
        return np.repeat(self.clients, np.diff(self.offsets))

    def _rows(self, clients: Ints) -> Ints:
        return np.minimum(np.searchsorted(self.clients, clients), len(self.clients) - 1)


@dataclass(frozen=True)
class NodeFiles:
    """The files of one node; ``folder`` is its own."""

    folder: Path

    def save(self, name: str, **arrays: Ints) -> None:
        """Write arrays under a name, all or nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{name}.partial"
        with open(partial, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        partial.replace(self.folder / f"{name}.npz")

    def load(self, name: str) -> dict[str, Ints]:
        """What was saved.

        Raises:
            ConfigError: nothing was.
        """
        path = self.folder / f"{name}.npz"
        if not path.is_file():
            raise ConfigError(f"active: this node has no {path.name}; resume with the nodes that the run had")
        with np.load(path) as arrays:
            return dict(arrays)

    def save_labels(self, query: int, labelled: LabelledPartition) -> None:
        """The labels after a query."""
        self.save(f"labels-{query:04d}", clients=labelled.clients, owners=labelled.owners, slots=labelled.slots)

    def labels(self, query: int, whole: Partition) -> LabelledPartition:
        """The labels after a query."""
        return LabelledPartition.of(whole, **self.load(f"labels-{query:04d}"))
