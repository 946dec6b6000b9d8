"""Cluster-Margin: uncertain examples, spread over clusters (Citovsky et al. 2021, "Batch active learning at scale")."""

import numpy as np
import numpy.typing as npt

from fedbatch.active.average_linkage import Floats
from fedbatch.core.random import Ints, generator


def cluster_margin(
    margins: npt.NDArray[np.floating],
    clusters: Ints,
    available: npt.ArrayLike,
    *,
    candidates: int,
    labels_wanted: int,
    seed: int | None = None,
) -> Ints:
    """Positions to label, in the order of choice (algorithm 2 of the paper).

    The ``candidates`` available examples of least margin are dealt out by their clusters: the cluster with the fewest
    candidates first, one from each in turn, until ``labels_wanted`` are chosen or none is left. Of equal margins the
    lower position comes first, of equally large clusters the one with the best candidate.

    Args:
        margins: (n,) probability of the likeliest class minus that of the second; any finite score, low = uncertain.
        clusters: (n,) of `cluster`.
        available: positions that have no label yet, in any order.
        candidates: k_m, as many as ``labels_wanted`` or more.
        labels_wanted: k_t.
        seed: of the uniform choice within a cluster; None takes the least margin.

    Returns:
        int64, ``min(labels_wanted, candidates, len(available))`` distinct positions.

    >>> margins, clusters = np.array([0.1, 0.2, 0.3, 0.4]), np.array([5, 5, 5, 8])
    >>> cluster_margin(margins, clusters, [0, 1, 2, 3], candidates=4, labels_wanted=3)
    array([3, 0, 1])
    """
    order = least(margins, available, candidates)
    _, first, codes = np.unique(clusters[order], return_index=True, return_inverse=True)
    within = np.arange(len(order)) if seed is None else generator(seed, "cluster margin").permutation(len(order))
    turn = np.empty_like(order)
    turn[within] = within_group(codes[within])
    visit = round_robin_order(np.bincount(codes, minlength=len(first)), first)
    return order[np.lexsort([np.argsort(visit)[codes], turn])][: max(0, labels_wanted)]


def least(scores: npt.NDArray[np.floating], available: npt.ArrayLike, count: int) -> Ints:
    """The ``count`` available positions of least score, ascending; of equals the lower position first."""
    positions = np.unique(np.asarray(available, np.int64))
    return positions[np.argsort(scores[positions], kind="stable")[: max(0, count)]]


def round_robin_order(counts: Ints, best: Ints | Floats) -> Ints:
    """Clusters (G,) in the order of visits: fewest candidates first, of equals the one with the least ``best`` (G,)."""
    return np.lexsort([best, counts])


def round_robin_quotas(counts: Ints, visit: Ints, labels_wanted: int) -> Ints:
    """How many each cluster (G,) gives when they give one in turn, in the order ``visit`` (G,), up to ``counts`` (G,).

    >>> round_robin_quotas(np.array([2, 5, 1]), np.array([2, 0, 1]), 5)
    array([2, 2, 1])
    """
    low, high = 0, int(counts.max(initial=0))  # the number of whole passes, by bisection
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(counts, middle).sum() <= labels_wanted else (low, middle - 1)
    quotas = np.minimum(counts, low)
    unfinished = visit[counts[visit] > low]
    quotas[unfinished[: max(0, labels_wanted - int(quotas.sum()))]] += 1
    return quotas


def within_group(codes: Ints) -> Ints:
    """How many of the same code come before each entry (n,).

    >>> within_group(np.array([3, 1, 3, 3, 1]))
    array([0, 0, 1, 2, 1])
    """
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes) if len(codes) else np.zeros(0, np.int64)
    turn = np.empty(len(codes), np.int64)
    turn[order] = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return turn
