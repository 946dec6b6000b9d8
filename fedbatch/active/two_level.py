"""Average linkage over clients: each clusters its own points, the server merges the clusters from three numbers each.

The mean squared distance between the points of two clusters is ``|mu_A - mu_B|^2 + V_A + V_B``, of their centroids mu
and mean squared deviations V from them. So with *squared* distances a server that knows (size, centroid, deviation) of
every local cluster goes on exactly as average linkage on all points would; what differs from clustering the union is
only that points of one client were merged first.
"""

from dataclasses import dataclass

import numpy as np

from fedbatch.active.average_linkage import Floats, average_linkage
from fedbatch.active.clustering import EXACT_POINTS, Embeddings, cut_tree
from fedbatch.core.errors import RunFailedError
from fedbatch.core.random import Ints


@dataclass(frozen=True)
class Summaries:
    """What is known of C clusters.

    Attributes:
        sizes: int64 (C,) points.
        centroids: float64 (C, d).
        deviations: float64 (C,) mean squared distance of a cluster's points from its centroid.
    """

    sizes: Ints
    centroids: Floats
    deviations: Floats


def cluster_squared(
    embeddings: Embeddings, *, epsilon: float | None = None, mean_cluster_size: float | None = None
) -> Ints:
    """As `fedbatch.active.cluster`, by squared distances: ``epsilon`` bounds their mean's root.

    Mean distance and root of the mean squared distance differ, so an epsilon of one is none of the other.
    """
    return cut_tree(
        embeddings, "sqeuclidean", epsilon=None if epsilon is None else epsilon**2, mean_cluster_size=mean_cluster_size
    )


def summarize(embeddings: Embeddings, clusters: Ints) -> Summaries:
    """Sizes, centroids and deviations of the clusters ``0 .. C - 1`` of points (n, d)."""
    x = np.asarray(embeddings, np.float64)
    sizes = np.bincount(clusters)
    centroids = np.zeros((len(sizes), x.shape[1]))
    np.add.at(centroids, clusters, x)
    centroids /= sizes[:, None]
    squares = np.square(x - centroids[clusters]).sum(axis=1)
    return Summaries(sizes, centroids, np.bincount(clusters, squares) / sizes)


def merge(local: Summaries, *, epsilon: float | None = None, mean_cluster_size: float | None = None) -> Ints:
    """Global cluster (C,) of each local one, numbered by their first members; arguments as in `cluster_squared`.

    Raises:
        RunFailedError: more clusters than the server's memory is meant for.

    >>> three = Summaries(np.array([2, 1, 3]), np.array([[0.0], [9.0], [1.0]]), np.zeros(3))
    >>> merge(three, epsilon=2.0)
    array([0, 1, 0])
    """
    if not len(local.sizes):
        return np.zeros(0, np.int64)
    if len(local.sizes) > EXACT_POINTS:
        raise RunFailedError(
            f"the clients found {len(local.sizes)} clusters, and the server merges at most {EXACT_POINTS}; raise "
            "active.selector.local_cluster_size"
        )
    deviations = local.deviations[:, None] + local.deviations[None, :]
    from scipy.spatial.distance import cdist

    found = average_linkage(cdist(local.centroids, local.centroids, "sqeuclidean") + deviations, local.sizes)
    if mean_cluster_size is not None:
        return found.cut(found.height_of(local.sizes.sum() / mean_cluster_size))
    return found.cut(float(epsilon or 0.0) ** 2)
