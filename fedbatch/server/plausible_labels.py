"""What must be true of answers about labels: pools are as large as at the start, and labels are counted once."""

from typing import Any

import numpy as np
import torch

from fedbatch.core.random import Ints
from fedbatch.server.hosts import Hosts
from fedbatch.server.plausible import LARGEST
from fedbatch.wire.check import require
from fedbatch.wire.queries import Counts, Labelled, LocalClusters, OwnPlan, PickPlan, Scored


def pools_of(hosts: Hosts, values: Ints, clients: Ints) -> Ints:
    """Entries (K,) of ``values`` (P,) of some clients."""
    return np.asarray(values[np.searchsorted(hosts.clients, clients)])


def check_labelled(hosts: Hosts, before: Ints, classes: int, answer: Labelled, plan: OwnPlan | PickPlan) -> None:
    """Labels only become more, no more than there are examples or were asked for; other counts add up to them.

    Args:
        hosts: pools of clients.
        before: int64 (P,) labels before the query.
        classes: of the labels.
        answer: what is checked.
        plan: what it answers.

    Raises:
        MessageError: naming the field.
    """
    had, most = pools_of(hosts, before, plan.clients), pools_of(hosts, hosts.num_examples, plan.clients)
    if isinstance(plan, OwnPlan):
        most = np.minimum(most, had + plan.quotas)
    inside = (had <= answer.num_labelled) & (answer.num_labelled <= most)
    require(bool(inside.all()), "num_labelled are not within what was asked for")
    groups = 0 if isinstance(plan, OwnPlan) else plan.num_groups
    total = int(answer.num_labelled.sum())
    for name, counts, lengths in (
        ("class_counts", answer.class_counts, (0, classes)),
        ("group_counts", answer.group_counts, (groups,)),
    ):
        require(len(counts) in lengths, f"{name} must have length {lengths[-1]} (got {len(counts)})")
        require(adds_up_to(counts, total, exact=True), f"{name} do not add up to num_labelled")


def check_scored(hosts: Hosts, before: Ints, answer: Scored, plan: Any) -> None:
    """What is not labelled is no more than what is left of a pool.

    Raises:
        MessageError: it is not.
    """
    left = pools_of(hosts, hosts.num_examples - before, plan.clients)
    require(bool((answer.num_unlabelled <= left).all()), "num_unlabelled are more than what is left of the pools")


def check_counts(hosts: Hosts, answer: Counts, plan: Any) -> None:
    """A histogram has the bins that were asked for, and no more examples than there are.

    Raises:
        MessageError: it does not.
    """
    bins, most = len(plan.lows) * plan.bins, int(pools_of(hosts, hosts.num_examples, plan.clients).sum())
    require(len(answer.histogram) == bins, f"histogram must have length {bins} (got {len(answer.histogram)})")
    require(adds_up_to(answer.histogram, most), "histogram counts more examples than there are")


def check_clusters(hosts: Hosts, answer: LocalClusters, plan: Any) -> None:
    """Clusters are of the examples that there are, and each one that is shared has a centroid and a deviation.

    Raises:
        MessageError: naming the field.
    """
    most = int(pools_of(hosts, hosts.num_examples, plan.clients).sum())
    shared = int((answer.cluster_sizes > 0).sum())
    require(len(answer.cluster_sizes) <= most, "cluster_sizes are of more clusters than examples")
    require(adds_up_to(answer.cluster_sizes, most), "cluster_sizes count more examples than there are")
    require(len(answer.deviations) == shared, f"deviations must have length {shared} (got {len(answer.deviations)})")
    whole = len(answer.centroids) % shared == 0 if shared else len(answer.centroids) == 0
    require(whole, "centroids are not one for each shared cluster")
    require(answer.centroids.dtype == answer.deviations.dtype == torch.float64, "centroids must be float64")
    require(bool(((answer.deviations >= 0) & (answer.deviations <= LARGEST)).all()), "deviations are not squares")
    require(bool((answer.centroids.abs() <= LARGEST**0.5).all()), "centroids are beyond what can be compared")


def adds_up_to(counts: Ints, total: int, exact: bool = False) -> bool:
    """Whether counts that are not negative add up to at most ``total``; empty ones always do."""
    if not len(counts):
        return True
    within = bool((counts <= total).all())  # before they are added: sums wrap around
    return within and (int(counts.sum()) == total if exact else int(counts.sum()) <= total)
