"""Which examples a client takes in a round: keyed permutations, drawn for a whole cohort at once."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbatch.core.random import Ints, bits


@dataclass(frozen=True)
class Draw:
    """The batches of K clients, padded to a common shape.

    Attributes:
        positions: int64 (K, S, b), positions in the shared training set; entries past ``counts`` are padding.
        counts: int64 (K, S), examples in each step's batch; 0 where a client has no such step.
    """

    positions: Ints
    counts: Ints

    @property
    def num_examples(self) -> Ints:
        """int64 (K,), examples that each client processes."""
        return self.counts.sum(axis=1)

    def select(self, rows: npt.NDArray[np.bool_] | slice) -> "Draw":
        """The draw of some of the clients."""
        return Draw(self.positions[rows], self.counts[rows])

    def shortened(self, steps: int, examples: int) -> "Draw":
        """The first of each client's steps, with the step that has the smallest batch among them, and batches cut."""
        width = min(self.positions.shape[2], examples)
        taken = np.where(self.counts > 0, self.counts, np.iinfo(np.int64).max)
        order = np.argsort(np.where(self.counts > 0, 0, 1), axis=1, kind="stable")[:, :steps]  # own steps, no gaps
        order[:, -1] = np.where(
            (order == taken.argmin(axis=1)[:, None]).any(axis=1), order[:, -1], taken.argmin(axis=1)
        )
        order.sort(axis=1)
        positions = np.take_along_axis(self.positions, order[:, :, None], axis=1)[:, :, :width]
        return Draw(positions, np.minimum(np.take_along_axis(self.counts, order, axis=1), width))


def first_slots(key: int, clients: Ints, sizes: Ints, count: int) -> Ints:
    """The first ``count`` slots of a uniformly random order of each client's examples, int64 (K, count).

    A client with fewer examples has its ``sizes[k]`` slots first and padding (slot 0) after them.

    >>> sorted(first_slots(7, np.array([3]), np.array([4]), 4)[0].tolist())
    [0, 1, 2, 3]
    """
    slots = np.arange(sizes.max(initial=0), dtype=np.int64)
    order = bits(key, clients[:, None], slots[None, :])
    order[slots[None, :] >= sizes[:, None]] = np.iinfo(np.uint64).max
    if count < len(slots) // 2:  # a partial sort is cheaper when few of many are wanted
        chosen = np.argpartition(order, count - 1, axis=1)[:, :count]
        rank = np.argsort(np.take_along_axis(order, chosen, axis=1), axis=1, kind="stable")
        drawn = np.take_along_axis(chosen, rank, axis=1)
    else:
        drawn = np.argsort(order, axis=1, kind="stable")[:, :count]
    return np.where(drawn < sizes[:, None], drawn, 0)
