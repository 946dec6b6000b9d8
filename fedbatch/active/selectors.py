"""What to label next: one class a selector, all called alike. None of them is ever shown a label.

A selector that ranks examples one by one also has ``scores``: then many clients can select as one, from counts alone
(`fedbatch.server.query`).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedbatch.active.average_linkage import Floats
from fedbatch.active.cluster_margin import cluster_margin, least
from fedbatch.active.clustering import Embeddings, check_cut
from fedbatch.core.random import Ints, generator


@dataclass(frozen=True)
class Pool:
    """What a selector sees of all examples of an owner, labelled and not.

    Attributes:
        probabilities: (n, classes) of the model.
        embeddings: (n, d) inputs of the model's last layer.
        clusters: (n,) of `fedbatch.active.cluster`; empty for selectors that use none.
    """

    probabilities: npt.NDArray[np.floating]
    embeddings: Embeddings
    clusters: Ints


class Selector(Protocol):
    """Chooses from the available positions of a pool.

    ``ranks_examples`` says whether it has ``scores``, ``uses_clusters`` whether it looks at the pool's clusters.
    """

    ranks_examples: bool
    uses_clusters: bool

    def __call__(self, pool: Pool, available: Ints, *, labels_wanted: int, seed: int) -> Ints:
        """``min(labels_wanted, len(available))`` distinct positions of ``available``."""
        ...


def margins(probabilities: npt.NDArray[np.floating]) -> Floats:
    """Probability of the likeliest class minus that of the second (n,), in [0, 1].

    >>> margins(np.array([[0.5, 0.25, 0.25]]))
    array([0.25])
    """
    top = np.partition(probabilities, -2, axis=1)
    return np.asarray(top[:, -1] - top[:, -2], np.float64)


@dataclass(frozen=True)
class Random:
    """Uniformly at random."""

    ranks_examples, uses_clusters = True, False

    def scores(self, probabilities: npt.NDArray[np.floating]) -> Floats:
        """All equal (n,): what breaks ties then decides."""
        return np.zeros(len(probabilities))

    def __call__(self, pool: Pool, available: Ints, *, labels_wanted: int, seed: int) -> Ints:
        """See `Selector`."""
        return generator(seed, "random selection").permutation(np.unique(available))[:labels_wanted]


@dataclass(frozen=True)
class Margin:
    """Least margin between the two likeliest classes (Scheffer et al. 2001)."""

    ranks_examples, uses_clusters = True, False

    def scores(self, probabilities: npt.NDArray[np.floating]) -> Floats:
        """The margins (n,)."""
        return margins(probabilities)

    def __call__(self, pool: Pool, available: Ints, *, labels_wanted: int, seed: int) -> Ints:
        """See `Selector`."""
        return least(self.scores(pool.probabilities), available, labels_wanted)


@dataclass(frozen=True)
class Entropy:
    """Largest entropy of the predicted classes."""

    ranks_examples, uses_clusters = True, False

    def scores(self, probabilities: npt.NDArray[np.floating]) -> Floats:
        """One minus the entropy over its largest value (n,), in [0, 1], so that low is uncertain."""
        positive = np.maximum(probabilities, np.finfo(np.float64).tiny)
        entropy = -(probabilities * np.log(positive)).sum(axis=1) / np.log(probabilities.shape[1])
        return np.clip(1.0 - entropy, 0.0, 1.0)

    def __call__(self, pool: Pool, available: Ints, *, labels_wanted: int, seed: int) -> Ints:
        """See `Selector`."""
        return least(self.scores(pool.probabilities), available, labels_wanted)


@dataclass(frozen=True)
class ClusterMargin:
    """Least margins, spread over clusters; see `cluster_margin`.

    Attributes:
        candidates_per_label: k_m / k_t >= 1, margin candidates for each label wanted.
        epsilon, mean_cluster_size: where the tree of clusters is cut; see `fedbatch.active.cluster`.
        random_picks: choose uniformly within a cluster, as the paper does; else the least margin.
        local_cluster_size: where many clients select as one and there is no ``epsilon``, mean size of the clusters that
            each finds in its own pool, or ``mean_cluster_size`` if that is less; smaller is nearer to clustering all
            pools as one, and shares more.
        min_cluster_size: clusters of fewer points are not shared then; the centroid of one point is its embedding.
    """

    candidates_per_label: float
    epsilon: float | None
    mean_cluster_size: float | None
    random_picks: bool = True
    local_cluster_size: float = 3.0
    min_cluster_size: int = 1

    ranks_examples = uses_clusters = True

    def __post_init__(self) -> None:
        check_cut(self.epsilon, self.mean_cluster_size)
        if not self.candidates_per_label >= 1:
            raise ValueError(f"candidates_per_label must be at least 1 (got {self.candidates_per_label})")
        for name in ("local_cluster_size", "min_cluster_size"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} must be at least 1 (got {getattr(self, name)})")

    def scores(self, probabilities: npt.NDArray[np.floating]) -> Floats:
        """The margins (n,)."""
        return margins(probabilities)

    def candidates(self, labels_wanted: int) -> int:
        """k_m."""
        return round(self.candidates_per_label * labels_wanted)

    def __call__(self, pool: Pool, available: Ints, *, labels_wanted: int, seed: int) -> Ints:
        """See `Selector`."""
        return cluster_margin(
            self.scores(pool.probabilities),
            pool.clusters,
            available,
            candidates=self.candidates(labels_wanted),
            labels_wanted=labels_wanted,
            seed=seed if self.random_picks else None,
        )
