"""How far the choice of many clients is from that of one owner of all their pools, on blobs of known overlap.

The protocol gives exactly the choice that the clusters imply (tests/server/test_query.py), so the clusters are all
that is varied here.
"""

import numpy as np

from fedbatch.active import cluster_margin
from fedbatch.active.two_level import Summaries, cluster_squared, merge, summarize
from fedbatch.core.random import Ints

BLOBS, POINTS, DIMENSIONS, CLIENTS, CANDIDATES, LABELS = 60, 1500, 8, 10, 300, 60
SPREADS = {"separated": (0.1, 1.0), "moderate": (0.25, 1.3), "heavy": (0.5, 2.6)}
"""Standard deviation within a blob, whose root mean squared distance is 4 times that, and epsilon. Centres are standard
normal, 4 apart in the root mean square and the nearest of them about 1.3: only the first are separated."""


def overlaps(seeds: int) -> list[dict[str, object]]:
    """Jaccard overlap with the central choice, by spread, partition and scope; a row a seed."""
    return [
        {"spread": name, "partition": partition, "seed": seed, **one(spread, epsilon, partition == "iid", seed)}
        for name, (spread, epsilon) in SPREADS.items()
        for partition in ("iid", "Dirichlet 0.1")
        for seed in range(seeds)
    ]


def one(spread: float, epsilon: float, iid: bool, seed: int) -> dict[str, float]:
    """Overlaps of one drawing of blobs, clients and margins."""
    draw = np.random.default_rng(seed)
    blob = draw.choice(BLOBS, size=POINTS, p=draw.dirichlet(np.ones(BLOBS)))
    x = draw.normal(size=(BLOBS, DIMENSIONS))[blob] + spread * draw.normal(size=(POINTS, DIMENSIONS))
    margins = np.clip(draw.uniform(size=BLOBS)[blob] + 0.1 * draw.normal(size=POINTS), 0, 1)  # blobs share a difficulty
    shares = draw.dirichlet(np.full(CLIENTS, 0.1), size=BLOBS)
    client = draw.integers(CLIENTS, size=POINTS) if iid else np.array([draw.choice(CLIENTS, p=shares[b]) for b in blob])

    def choose(clusters: Ints) -> Ints:
        return cluster_margin(margins, clusters, np.arange(POINTS), candidates=CANDIDATES, labels_wanted=LABELS)

    central, owned = choose(cluster_squared(x, epsilon=epsilon)), [np.flatnonzero(client == k) for k in range(CLIENTS)]
    owned = [own for own in owned if len(own)]
    local = [cluster_squared(x[own], epsilon=epsilon) for own in owned]
    parts = [summarize(x[own], labels) for own, labels in zip(owned, local, strict=True)]
    joined = Summaries(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("sizes", "centroids", "deviations"))
    )
    firsts = np.cumsum([0] + [len(part.sizes) for part in parts])
    separate = np.empty(POINTS, np.int64)
    for own, labels, first in zip(owned, local, firsts[:-1], strict=True):
        separate[own] = labels + first
    quotas = draw.multivariate_hypergeometric([len(own) for own in owned], LABELS)
    alone = [
        cluster_margin(margins, separate, own, candidates=5 * quota, labels_wanted=quota)
        for own, quota in zip(owned, quotas, strict=True)
    ]
    chosen = {
        "two_level": choose(merge(joined, epsilon=epsilon)[separate]),
        "global_only": choose(separate),
        "local_only": np.concatenate(alone),
        "plain margin": choose(np.zeros(POINTS, np.int64)),
    }
    return {name: len(np.intersect1d(own, central)) / len(np.union1d(own, central)) for name, own in chosen.items()}
