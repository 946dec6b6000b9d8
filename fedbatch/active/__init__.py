"""Batch active learning: what to label next, for one owner of data or for many clients together."""

from fedbatch.active.badge import Badge
from fedbatch.active.cluster_margin import cluster_margin
from fedbatch.active.clustering import cluster
from fedbatch.active.coreset import CoreSet
from fedbatch.active.learning import ActiveLearning
from fedbatch.active.selectors import ClusterMargin, Entropy, Margin, Pool, Random, margins

__all__ = [
    "ActiveLearning",
    "Badge",
    "ClusterMargin",
    "CoreSet",
    "Entropy",
    "Margin",
    "Pool",
    "Random",
    "cluster",
    "cluster_margin",
    "margins",
]
