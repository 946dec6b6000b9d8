"""The ``query`` messages of active learning, one frozen dataclass each; `fedbatch.wire.codec` carries them.

Questions go to every node, for all the clients it hosts; ``query`` counts from 0, the seed labels.
"""

from dataclasses import dataclass

from torch import Tensor

from fedbatch.wire.schema import Counts as PerClient
from fedbatch.wire.schema import Ids, Listed


@dataclass(frozen=True)
class OwnPlan:
    """Choose and label by yourself: seed labels at random, or later by the selector on the client's own pool.

    Attributes:
        params, buffers: (d,), (m,) global model; (0,) where the choice is random.
        clients: int64 (K,) ids, ascending.
        quotas: int64 (K,) labels of each.
        query: index of the query.
    """

    params: Tensor
    buffers: Tensor
    clients: Ids
    quotas: PerClient
    query: int


@dataclass(frozen=True)
class Labelled:
    """What came of it, in counts that add up over nodes. Which examples they are stays with the client.

    Attributes:
        clients: int64 (K,).
        num_labelled: int64 (K,) labelled examples of each.
        class_counts: int64 (classes,) labelled examples of all by class; (0,) in a private run.
        group_counts: int64 (G,) labelled examples by cluster; (0,) where clusters are nobody else's.
    """

    clients: Ids
    num_labelled: PerClient
    class_counts: Listed
    group_counts: Listed


@dataclass(frozen=True)
class ClusterPlan:
    """Cluster your pools by the embeddings of this model, once for the whole run."""

    params: Tensor
    buffers: Tensor
    clients: Ids


@dataclass(frozen=True)
class LocalClusters:
    """The clusters of a node's clients, C in all; S of them are shared: what the server needs to merge them.

    Attributes:
        clients: int64 (K,).
        cluster_sizes: int64 (C,) points of each cluster, client after client; 0 for one that is not shared.
        centroids: float64 (S * e,) of the shared, one after the other.
        deviations: float64 (S,) mean squared distance from the centroid.
    """

    clients: Ids
    cluster_sizes: Listed
    centroids: Tensor
    deviations: Tensor


@dataclass(frozen=True)
class ScorePlan:
    """Score your unlabelled examples with this model, and keep the scores for the counts that follow."""

    params: Tensor
    buffers: Tensor
    clients: Ids
    query: int


@dataclass(frozen=True)
class Scored:
    """Unlabelled examples of each client: int64 (K,)."""

    clients: Ids
    num_unlabelled: PerClient


@dataclass(frozen=True)
class CountPlan:
    """How many unlabelled examples have their keys where? See `fedbatch.active.order_statistic.histogram`.

    Attributes:
        clients: int64 (K,).
        groups: int64 (C,) group of each cluster of the node's clients, G for none of them; (0,) puts all in group 0.
        lows: int64 (G,) where the first bin of each group begins.
        width: keys of a bin.
        bins: bins of each group.
        limit: largest score key of a candidate.
        by_pick: whether to bin by pick keys instead of score keys.
    """

    clients: Ids
    groups: Listed
    lows: Listed
    width: int
    bins: int
    limit: int
    by_pick: bool


@dataclass(frozen=True)
class Counts:
    """Candidates by group and bin, int64 (G * bins,), summed over the node's clients."""

    clients: Ids
    histogram: Listed


@dataclass(frozen=True)
class PickPlan:
    """Label every candidate whose key is at most its group's threshold; fields as in `CountPlan`.

    Attributes:
        thresholds: int64 (G,) largest pick key of each group.
        query: index of the query.
        report_groups: int64 (C,) clusters by which labels are counted in the answer.
        num_groups: of those.
    """

    clients: Ids
    groups: Listed
    thresholds: Listed
    limit: int
    by_pick: bool
    query: int
    report_groups: Listed
    num_groups: int
