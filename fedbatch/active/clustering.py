"""Clusters of embeddings, once for all rounds of selection (Citovsky et al. 2021, algorithm 1)."""

import numpy as np
import numpy.typing as npt

from fedbatch.active.average_linkage import Merges, average_linkage
from fedbatch.core.random import Ints

EXACT_POINTS = 10_000
"""Up to so many points the whole matrix of distances is held: 0.8 GB."""
CELL_POINTS = 2_000
"""Largest cell of what is approximated beyond it."""
AXIS_SAMPLE = 512

Embeddings = npt.NDArray[np.floating]


def cluster(embeddings: Embeddings, *, epsilon: float | None = None, mean_cluster_size: float | None = None) -> Ints:
    """Cluster (n,) of each embedding by average linkage of Euclidean distances, numbered by their first members.

    Beyond `EXACT_POINTS` it is an approximation in memory O(n): the points are halved along their main axis, and the
    halves again, down to cells of at most `CELL_POINTS`; each is clustered exactly, all are cut at one height, and no
    cluster crosses the border of a cell.

    Args:
        embeddings: (n, d), n >= 1, finite.
        epsilon: merge while the mean distance between two clusters is at most this; >= 0, in the embeddings' unit.
        mean_cluster_size: instead of ``epsilon``, the least height of the cut at which clusters have at least so many
            points on average, >= 1.

    Raises:
        ValueError: not exactly one of the two, out of range, or a mean size that cells are too small for.

    >>> cluster(np.array([[0.0], [9.0], [1.0]]), epsilon=2.0)
    array([0, 1, 0])
    """
    return cut_tree(embeddings, "euclidean", epsilon=epsilon, mean_cluster_size=mean_cluster_size)


def cut_tree(embeddings: Embeddings, metric: str, *, epsilon: float | None, mean_cluster_size: float | None) -> Ints:
    """`cluster` with any distance of SciPy's ``cdist``."""
    check_cut(epsilon, mean_cluster_size)
    if not np.isfinite(embeddings).all():
        raise ValueError("embeddings has values that are not finite; has training diverged?")
    n = len(embeddings)
    parts = cells(embeddings, n if n <= EXACT_POINTS else CELL_POINTS)
    merges = in_cells(embeddings, parts, metric)
    if epsilon is not None:
        return merges.cut(epsilon)
    assert mean_cluster_size is not None
    if n / mean_cluster_size < len(parts) > 1:
        raise ValueError(
            f"mean_cluster_size must be at most {n // len(parts)} for {n} points (got {mean_cluster_size}): beyond "
            f"{EXACT_POINTS} points clusters lie within cells; cluster a sample instead"
        )
    return merges.cut(merges.height_of(n / mean_cluster_size))


def check_cut(epsilon: float | None, mean_cluster_size: float | None) -> None:
    """One of two ways to say where a tree is cut.

    Raises:
        ValueError: both, neither, or out of range.
    """
    if (epsilon is None) == (mean_cluster_size is None):
        raise ValueError("set one of epsilon and mean_cluster_size, and the other to null")
    if epsilon is not None and not epsilon >= 0:
        raise ValueError(f"epsilon must be at least 0 (got {epsilon})")
    if mean_cluster_size is not None and not mean_cluster_size >= 1:
        raise ValueError(f"mean_cluster_size must be at least 1 (got {mean_cluster_size})")


def in_cells(embeddings: Embeddings, parts: list[Ints], metric: str) -> Merges:
    """The trees of all cells as one, joined by links of infinite height."""
    from scipy.spatial.distance import cdist

    trees = [average_linkage(cdist(embeddings[part], embeddings[part], metric)) for part in parts]
    firsts = np.array([part[0] for part in parts])
    links = [part[found.links] for part, found in zip(parts, trees, strict=True)]
    borders = np.stack([firsts[:-1], firsts[1:]], axis=1)
    heights = [found.heights for found in trees]
    return Merges(np.concatenate([*links, borders]), np.concatenate([*heights, np.full(len(borders), np.inf)]))


def cells(embeddings: Embeddings, size: int) -> list[Ints]:
    """Positions of the points of each cell: halves of halves across the main axis, until none is beyond ``size``."""
    waiting, found = [np.arange(len(embeddings))], list[Ints]()
    while waiting:
        part = waiting.pop()
        if len(part) <= size:
            found.append(part)
            continue
        sample = embeddings[part[np.linspace(0, len(part) - 1, AXIS_SAMPLE).astype(np.int64)]]
        axis = np.linalg.svd(sample - sample.mean(axis=0), full_matrices=False)[2][0]
        order = np.argpartition(embeddings[part] @ axis, len(part) // 2)
        waiting += [np.sort(half) for half in (part[order[: len(part) // 2]], part[order[len(part) // 2 :]])]
    return found
