"""Average-linkage hierarchical clustering by nearest-neighbour chains, and cuts of its tree.

Our own and not SciPy's for two reasons: it starts from clusters of any size, which merging other people's clusters
needs, and on a full matrix its rows are contiguous, which makes it several times faster.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbatch.core.random import Ints

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Merges:
    """The tree of a clustering of n items, as the links that build it, in no order.

    Attributes:
        links: int64 (n - 1, 2), an item of each of the two clusters that were merged.
        heights: float64 (n - 1,), linkage at which they were.
    """

    links: Ints
    heights: Floats

    def cut(self, height: float) -> Ints:
        """Cluster (n,) of each item when clusters merge up to ``height``, numbered by their first items."""
        n, kept = len(self.heights) + 1, self.links[self.heights <= height]
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        graph = coo_array((np.ones(len(kept), np.int8), (kept[:, 0], kept[:, 1])), shape=(n, n))
        return by_first_member(connected_components(graph, directed=False)[1])

    def height_of(self, clusters: float) -> float:
        """Least height at which no more than ``clusters`` (at least one) are left."""
        n = len(self.heights) + 1
        merged = n - max(1, min(n, int(clusters)))
        return float(np.partition(self.heights, merged - 1)[merged - 1]) if merged else -np.inf


def average_linkage(distances: Floats, sizes: npt.ArrayLike | None = None) -> Merges:
    """Merge the two nearest clusters until one is left; nearness is the mean distance over pairs of their items.

    Args:
        distances: (n, n), n >= 1, symmetric; overwritten. Of clusters, the mean over pairs of their items.
        sizes: (n,) items that each starts with; None for single items.

    Source: the update of Lance and Williams (1967) with the weights of sizes; Murtagh (1983) for the chain, which finds
    the same tree in O(n^2) because average linkage is reducible.

    >>> average_linkage(np.array([[0.0, 1.0, 4.0], [1.0, 0.0, 6.0], [4.0, 6.0, 0.0]])).heights
    array([1., 5.])
    """
    names, weights = (
        np.arange(len(distances)),
        np.ones(len(distances)) if sizes is None else np.array(sizes, np.float64),
    )
    np.fill_diagonal(distances, np.inf)
    links, heights = np.empty((len(names) - 1, 2), np.int64), np.empty(len(names) - 1)
    chain: list[int] = []
    for step in range(len(links)):
        if len(names) > 2 * (len(links) + 1 - step):  # half of the rows are gone: go on with a matrix of the others
            kept_rows = np.flatnonzero(weights)
            distances, names, weights = distances[np.ix_(kept_rows, kept_rows)], names[kept_rows], weights[kept_rows]
            chain = np.searchsorted(kept_rows, chain).tolist()
        if not chain:
            chain.append(int(weights.argmax()))
        gone, kept = _follow(distances, chain)
        links[step], heights[step] = names[[gone, kept]], distances[gone, kept]
        row = weights[gone] * distances[gone] + weights[kept] * distances[kept]
        row /= weights[gone] + weights[kept]
        row[[gone, kept]] = np.inf
        distances[kept] = distances[:, kept] = row
        distances[:, gone] = np.inf
        weights[kept] += weights[gone]
        weights[gone] = 0
    return Merges(links, heights)


def _follow(distances: Floats, chain: list[int]) -> tuple[int, int]:
    """Go from nearest neighbour to nearest neighbour until two are each other's; take them off the chain."""
    while True:
        last = chain[-1]
        nearest = int(distances[last].argmin())
        # Of equals the one before: distances along the chain fall, so it ends.
        if len(chain) > 1 and distances[last, chain[-2]] <= distances[last, nearest]:
            return chain.pop(), chain.pop()
        chain.append(nearest)


def by_first_member(labels: Ints) -> Ints:
    """The same clusters, numbered in the order in which they first appear.

    >>> by_first_member(np.array([7, 2, 7, 0]))
    array([0, 1, 0, 2])
    """
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
