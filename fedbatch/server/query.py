"""The server's side of a query: decide together from counts what many clients label, each from its own pool.

1. Clusters, once: every client clusters its pool; the server merges the clusters from sizes, centroids and deviations.
2. Scores: every client scores its unlabelled examples with the global model and keeps the scores.
3. Candidates: the score of the k_m-th least over all clients, found from histograms that add up.
4. Round robin over the global clusters, on their numbers of candidates: a quota for each cluster.
5. Picks: for each cluster, the threshold below which its quota lies, found as in 3; clients label what lies below.

Nothing but counts, thresholds and the summaries of 1 is sent. With the clusters given, the choice is exactly that of
one owner of all pools.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from fedbatch.active.cluster_margin import round_robin_order, round_robin_quotas
from fedbatch.active.order_statistic import KEY_BITS, LARGEST, Count, smallest, threshold
from fedbatch.active.two_level import Summaries, merge
from fedbatch.core.errors import RunFailedError
from fedbatch.core.random import Ints
from fedbatch.server.ask import ask
from fedbatch.server.plausible_labels import check_clusters, check_counts, check_labelled, check_scored
from fedbatch.server.server import Server
from fedbatch.server.state import ServerState
from fedbatch.wire.check import MessageError, SquaredLengths
from fedbatch.wire.codec import array_bytes
from fedbatch.wire.queries import (
    ClusterPlan,
    CountPlan,
    Counts,
    Labelled,
    LocalClusters,
    OwnPlan,
    PickPlan,
    Scored,
    ScorePlan,
)

ACTION = "query.active"
NONE = np.zeros(0, np.int64)
Answer = TypeVar("Answer", LocalClusters, Scored, Counts, Labelled)


@dataclass
class Poll:
    """Questions to all nodes; counts what they weigh.

    Attributes:
        server: the server.
        query: index of the query.
        bytes_down, bytes_up: bytes of arrays sent so far.
    """

    server: Server
    query: int
    bytes_down: int = field(default=0, init=False)
    bytes_up: int = field(default=0, init=False)

    @property
    def nodes(self) -> dict[int, Ints]:
        """Clients of each node, in the order in which answers come."""
        return self.server.hosts.by_node(self.server.hosts.clients)

    def ask(
        self, kind: type[Answer], plans: Mapping[int, Any], check: Callable[[Any, Any], None] | None = None
    ) -> list[Answer]:
        """The answers in the order of the plans, each checked against its plan.

        Raises:
            RunFailedError: a node gave none, or none that is valid: labels of all are needed to go on.
        """
        group, timeout = f"query-{self.query}", self.server.task.config.round_timeout_seconds

        def check_all(answer: Answer, plan: Any, _: SquaredLengths) -> None:
            check_asked(answer, plan)
            if check is not None:
                check(answer, plan)

        replies = ask(self.server.grid, plans, kind, ACTION, group, timeout, lambda _: {}, check_all)
        self.bytes_down += sum(map(array_bytes, plans.values()))
        self.bytes_up += sum(map(array_bytes, replies.answers.values()))
        for node, reason in replies.rejected.items():
            raise RunFailedError(f"query {self.query} needs every node, and node {node} said: {reason}")
        return [replies.answers[node] for node in plans]


def check_asked(answer: Any, plan: Any) -> None:
    """A node answers for all the clients that it was asked for.

    Raises:
        MessageError: it does not.
    """
    if not np.array_equal(answer.clients, plan.clients):
        raise MessageError("clients are not those that were asked for")


def choose_own(poll: Poll, state: ServerState | None, quotas: Ints) -> list[Labelled]:
    """Every client chooses ``quotas`` (P,) of its own; at random without a state, else by the selector on its model."""
    hosts, model = poll.server.hosts, poll.server.optimizer.model
    given = (model.params[:0], model.buffers[:0]) if state is None else (state.params, state.buffers)
    plans = {
        node: OwnPlan(*given, clients, quotas[np.searchsorted(hosts.clients, clients)], poll.query)
        for node, clients in poll.nodes.items()
    }
    classes, pools = poll.server.task.num_classes, poll.server.hosts
    check = partial(check_labelled, pools, labels_before(state, len(hosts.clients)), classes)
    return poll.ask(Labelled, plans, check)


def labels_before(state: ServerState | None, count: int) -> Ints:
    """Labels of each client (P,) before a query; none where nothing was asked for yet."""
    known = None if state is None else state.labels.num_labelled.numpy()
    return np.zeros(count, np.int64) if known is None or not len(known) else np.asarray(known, np.int64)


def cluster_pools(poll: Poll, state: ServerState) -> list[Ints]:
    """Global cluster of each local one, an array a node; clusters that are not shared are clusters of their own."""
    active = poll.server.task.active
    assert active is not None
    nodes = poll.nodes
    plans = {node: ClusterPlan(state.params, state.buffers, clients) for node, clients in nodes.items()}
    answers = poll.ask(LocalClusters, plans, partial(check_clusters, poll.server.hosts))
    sizes = np.concatenate([answer.cluster_sizes for answer in answers])
    shared = sizes > 0
    deviations = np.concatenate([answer.deviations.numpy() for answer in answers])
    centroids = np.concatenate([answer.centroids.numpy() for answer in answers])
    widths = {len(a.centroids) / len(a.deviations) for a in answers if len(a.deviations)}
    if len(deviations) != shared.sum() or len(widths) > 1 or centroids.size % max(1, len(deviations)):
        raise RunFailedError("the summaries of clusters do not fit their number; do all nodes run the same fedbatch?")
    centroids = centroids.reshape(len(deviations), centroids.size // max(1, len(deviations)))
    groups = np.empty(len(sizes), np.int64)
    groups[shared] = merge(Summaries(sizes[shared], centroids, deviations), **active.global_cut)
    groups[~shared] = groups[shared].max(initial=-1) + 1 + np.arange((~shared).sum())
    return np.split(groups, np.cumsum([len(answer.cluster_sizes) for answer in answers])[:-1])


def choose_together(poll: Poll, state: ServerState, groups: list[Ints], labels_wanted: int) -> list[Labelled]:
    """Let all clients label ``labels_wanted`` examples as if their pools were one.

    Args:
        poll: of this query.
        state: gives the model.
        groups: of `cluster_pools`, or nothing for a selector without clusters.
        labels_wanted: k_t; fewer where fewer are left.
    """
    nodes = poll.nodes
    plans = {node: ScorePlan(state.params, state.buffers, clients, poll.query) for node, clients in nodes.items()}
    hosts, before = poll.server.hosts, labels_before(state, len(poll.server.hosts.clients))
    left = sum(int(a.num_unlabelled.sum()) for a in poll.ask(Scored, plans, partial(check_scored, hosts, before)))
    chosen = choose(poll, groups, min(labels_wanted, left), left)
    reports = groups or everything(poll)
    num_groups = 1 + max((int(own.max(initial=-1)) for own in groups), default=-1)
    picks = {
        node: PickPlan(clients, own, chosen.thresholds, chosen.limit, chosen.by_pick, poll.query, report, num_groups)
        for (node, clients), own, report in zip(nodes.items(), chosen.groups, reports, strict=True)
    }
    return poll.ask(Labelled, picks, partial(check_labelled, hosts, before, poll.server.task.num_classes))


@dataclass(frozen=True)
class Choice:
    """Which examples to label: those of score key up to ``limit`` whose key is up to the threshold of their group.

    Attributes:
        groups: group of each cluster, an array a node; an empty one puts all examples in group 0.
        thresholds: int64 (G,) of score keys, or of pick keys where ``by_pick``.
        limit: largest score key of a candidate.
        by_pick: see above.
    """

    groups: list[Ints]
    thresholds: Ints
    limit: int = LARGEST
    by_pick: bool = False


def choose(poll: Poll, groups: list[Ints], labels_wanted: int, left: int) -> Choice:
    """The least scores, or with clusters what Cluster-Margin takes of them; of ``left`` unlabelled examples."""
    together, active = everything(poll), poll.server.task.active
    assert active is not None
    if not labels_wanted:
        return Choice(together, NONE)
    if not groups:
        return Choice(together, threshold(counter(poll, together, LARGEST, False), np.array([labels_wanted])))
    candidates = min(left, active.selector.candidates(labels_wanted))
    limit = int(threshold(counter(poll, together, LARGEST, False), np.array([candidates]))[0])
    quotas = cluster_quotas(poll, groups, 1 + max(int(own.max(initial=-1)) for own in groups), limit, labels_wanted)
    picking, by_pick = only(groups, quotas > 0), active.selector.random_picks
    thresholds = threshold(counter(poll, picking, limit, by_pick), quotas[quotas > 0])
    return Choice(picking, thresholds, limit, by_pick)


def everything(poll: Poll) -> list[Ints]:
    """All examples in one group."""
    return [NONE] * len(poll.nodes)


def cluster_quotas(poll: Poll, groups: list[Ints], num_groups: int, limit: int, labels_wanted: int) -> Ints:
    """How many labels each global cluster (G,) gets: the round robin, on numbers of candidates."""
    counts = counter(poll, groups, limit, False)(np.zeros(num_groups, np.int64), 1 << KEY_BITS, 1)[:, 0]
    some = counts > 0
    best = np.full(num_groups, LARGEST)
    best[some] = smallest(counter(poll, only(groups, some), limit, False), np.ones(some.sum(), np.int64))
    return round_robin_quotas(counts, round_robin_order(counts, best), labels_wanted)


def counter(poll: Poll, groups: list[Ints], limit: int, by_pick: bool) -> Count:
    """Counts over all nodes, as `smallest` asks for them."""

    def count(lows: Ints, width: int, bins: int) -> Ints:
        plans = {
            node: CountPlan(clients, own, lows, width, bins, limit, by_pick)
            for (node, clients), own in zip(poll.nodes.items(), groups, strict=True)
        }
        answers = poll.ask(Counts, plans, partial(check_counts, poll.server.hosts))
        if any(len(answer.histogram) != len(lows) * bins for answer in answers):
            raise RunFailedError(f"query {poll.query}: a histogram does not have the bins that were asked for")
        total = np.sum([answer.histogram for answer in answers], axis=0)
        return np.asarray(total, np.int64).reshape(len(lows), bins)

    return count


def only(groups: list[Ints], wanted: np.ndarray) -> list[Ints]:
    """Groups numbered anew among the ``wanted`` (G,); the others get a number beyond them."""
    number = np.where(wanted, np.cumsum(wanted) - 1, wanted.sum())
    return [number[own] for own in groups]
