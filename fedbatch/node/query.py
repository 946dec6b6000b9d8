"""A node's answers to the questions of active learning, for the clients it hosts.

Embeddings, scores and the names of examples stay here; answers are counts, and for clusters what `LocalClusters` says.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import RecordDict

from fedbatch.active.cluster_margin import within_group
from fedbatch.active.learning import ActiveLearning
from fedbatch.active.order_statistic import histogram, random_keys, score_keys
from fedbatch.active.selectors import Pool, Random, Selector
from fedbatch.active.two_level import cluster_squared, summarize
from fedbatch.core.random import Ints, key
from fedbatch.data.holdout import HoldoutPartition
from fedbatch.node.embed import Matrix, embed
from fedbatch.node.labels import LabelledPartition, NodeFiles
from fedbatch.setup.task import Task
from fedbatch.wire.check import MessageError
from fedbatch.wire.codec import decode, kind_of, reply
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

NONE = np.zeros(0, np.int64)


def files_of(task: Task, partition_id: Any) -> NodeFiles:
    """The files of the node in its place of the run folder."""
    return NodeFiles(Path(task.config.run_dir) / "active" / f"node-{partition_id}")


def on_labels(task: Task, files: NodeFiles, round_: int) -> Task:
    """The task with only what is labelled in this round to train on."""
    if task.active is None:
        return task
    labels = files.labels(task.active.query_of(round_, task.config.rounds), task.partition)
    return replace(task, partition=HoldoutPartition(labels, 0.0))


def answer(content: RecordDict, task: Task, files: NodeFiles) -> RecordDict:
    """Answer any of the questions.

    Raises:
        MessageError: it is none of them.
    """
    name = kind_of(content)
    if name not in ANSWERS or task.active is None:
        raise MessageError(f"{name} is no question of active learning; do both ends run the same config?")
    if task.privacy is not None and name != "OwnPlan":
        raise MessageError(f"{name} asks for counts or centroids, which a private run does not tell")
    kind, respond = ANSWERS[name]
    return reply(respond(decode(kind, content), task, task.active, files), content)


def choose_own(plan: OwnPlan, task: Task, active: ActiveLearning, files: NodeFiles) -> Labelled:
    """Every client chooses its quota from its own pool."""
    labels = labels_before(plan.query, task, plan.clients, files)
    owners, slots = [labels.owners], [labels.slots]
    clusters = own_clusters(plan, task, active, files) if plan.query and active.selector.uses_clusters else None
    for row, (client, quota) in enumerate(zip(plan.clients.tolist(), plan.quotas.tolist(), strict=True)):
        if not quota:
            continue
        size = int(task.partition.sizes(plan.clients[row : row + 1])[0])
        free = np.setdiff1d(np.arange(size), labels.slots[labels.owners == client])
        select: Selector = Random()
        pool = Pool(np.zeros((size, 0)), np.zeros((size, 0)), NONE)
        if plan.query:
            select = active.selector
            pool = Pool(*embedded(task, plan, client), NONE if clusters is None else clusters[row])
        chosen = select(pool, free, labels_wanted=quota, seed=key(task.config.seed, "select", plan.query, client))
        owners.append(np.full(len(chosen), client))
        slots.append(chosen)
    after = LabelledPartition.of(task.partition, plan.clients, np.concatenate(owners), np.concatenate(slots))
    return labelled(after, plan.query, task, files, NONE)


def own_clusters(plan: OwnPlan, task: Task, active: ActiveLearning, files: NodeFiles) -> list[Ints]:
    """Clusters of every client's pool, found at the first query with its model and kept."""
    if plan.query == 1:
        find_clusters(ClusterPlan(plan.params, plan.buffers, plan.clients), task, active, files)
    saved = files.load("clusters")
    return np.split(saved["clusters"], np.cumsum(task.partition.sizes(plan.clients))[:-1])


def find_clusters(plan: ClusterPlan, task: Task, active: ActiveLearning, files: NodeFiles) -> LocalClusters:
    """Cluster every client's pool; what is shared of a cluster depends on its size and the scope."""
    numbers, found = [], []
    for client in plan.clients.tolist():
        _, embeddings = embedded(task, plan, client)
        clusters = cluster_squared(embeddings, **active.local_cut) if len(embeddings) else NONE
        numbers.append(clusters)
        found.append(summarize(embeddings, clusters))
    counts = np.array([len(summary.sizes) for summary in found])
    files.save("clusters", clusters=np.concatenate(numbers), firsts=np.cumsum(counts) - counts)
    sizes = np.concatenate([summary.sizes for summary in found])
    shared = (sizes >= active.selector.min_cluster_size) & (active.scope == "two_level")
    return LocalClusters(
        clients=plan.clients,
        cluster_sizes=np.where(shared, sizes, 0),
        centroids=torch.from_numpy(np.concatenate([summary.centroids for summary in found])[shared].ravel()),
        deviations=torch.from_numpy(np.concatenate([summary.deviations for summary in found])[shared]),
    )


def score(plan: ScorePlan, task: Task, active: ActiveLearning, files: NodeFiles) -> Scored:
    """Keys of all unlabelled examples, kept for the counts and picks of this query."""
    sizes, seed = task.partition.sizes(plan.clients), task.config.seed
    owners = np.repeat(plan.clients, sizes)
    slots = within_group(owners)
    labels = labels_before(plan.query, task, plan.clients, files)
    names = owners << 32 | slots
    free = ~np.isin(names, labels.owners << 32 | labels.slots)
    owners, slots = owners[free], slots[free]
    probabilities, _ = embed(loaded(task, plan), task.train_x[task.partition.lookup(owners, slots)])
    keys = score_keys(active.selector.scores(probabilities), owners, slots, key(seed, "ties", plan.query))
    clusters = np.zeros(len(slots), np.int64)
    if active.selector.uses_clusters:
        saved = files.load("clusters")
        clusters = (saved["clusters"] + np.repeat(saved["firsts"], sizes))[free]
    picks = random_keys(owners, slots, key(seed, "picks", plan.query))
    files.save("scored", owners=owners, slots=slots, keys=keys, picks=picks, clusters=clusters)
    return Scored(plan.clients, np.bincount(np.searchsorted(plan.clients, owners), minlength=len(plan.clients)))


def count(plan: CountPlan, task: Task, active: ActiveLearning, files: NodeFiles) -> Counts:
    """A histogram of the keys of candidates."""
    scored = files.load("scored")
    groups = grouped(plan.groups, scored, plan.limit, len(plan.lows))
    keys = scored["picks" if plan.by_pick else "keys"]
    return Counts(plan.clients, histogram(keys, groups, plan.lows, plan.width, plan.bins).ravel())


def pick(plan: PickPlan, task: Task, active: ActiveLearning, files: NodeFiles) -> Labelled:
    """Label the candidates whose key is within their group's threshold."""
    scored = files.load("scored")
    groups = grouped(plan.groups, scored, plan.limit, len(plan.thresholds))
    keys = scored["picks" if plan.by_pick else "keys"]
    chosen = keys <= np.append(plan.thresholds, -1)[groups]
    before = labels_before(plan.query, task, plan.clients, files)
    owners = np.concatenate([before.owners, scored["owners"][chosen]])
    slots = np.concatenate([before.slots, scored["slots"][chosen]])
    after = LabelledPartition.of(task.partition, plan.clients, owners, slots)
    return labelled(after, plan.query, task, files, plan.report_groups, plan.num_groups)


def grouped(groups: Ints, scored: dict[str, Ints], limit: int, none: int) -> Ints:
    """Group (n,) of each unlabelled example; ``none`` for those beyond the limit, which are no candidates."""
    own = groups[scored["clusters"]] if len(groups) else np.zeros(len(scored["keys"]), np.int64)
    return np.where(scored["keys"] <= limit, np.minimum(own, none), none)


def labels_before(query: int, task: Task, clients: Ints, files: NodeFiles) -> LabelledPartition:
    """The labels that a query starts from."""
    return (
        files.labels(query - 1, task.partition) if query else LabelledPartition.of(task.partition, clients, NONE, NONE)
    )


def labelled(
    after: LabelledPartition, query: int, task: Task, files: NodeFiles, groups: Ints, num_groups: int = 0
) -> Labelled:
    """Save the labels, and say how many they are. The oracle is the data set: labels are looked up only here."""
    files.save_labels(query, after)
    num_labelled = after.sizes(after.clients)
    classes = NONE
    if task.privacy is None:
        positions = after.whole.lookup(after.owners, after.slots)
        classes = np.bincount(task.train_y[positions].cpu().numpy(), minlength=task.num_classes)
    by_group = NONE
    if len(groups):
        saved, sizes = files.load("clusters"), task.partition.sizes(after.clients)
        rows = np.searchsorted(after.clients, after.owners)
        clusters = saved["clusters"][(np.cumsum(sizes) - sizes)[rows] + after.slots] + saved["firsts"][rows]
        by_group = np.bincount(groups[clusters], minlength=num_groups)
    return Labelled(after.clients, num_labelled, classes, by_group)


def embedded(task: Task, plan: OwnPlan | ClusterPlan, client: int) -> tuple[Matrix, Matrix]:
    """Probabilities and embeddings of one client's whole pool."""
    size = int(task.partition.sizes(np.array([client]))[0])
    positions = task.partition.lookup(np.full(size, client), np.arange(size))
    return embed(loaded(task, plan), task.train_x[positions])


def loaded(task: Task, plan: Any) -> Any:
    """The node's model with the parameters of a plan."""
    task.node_model.load(plan.params.to(task.node_model.params), plan.buffers.to(task.node_model.buffers))
    return task.node_model


ANSWERS: dict[str, tuple[Any, Callable[[Any, Task, ActiveLearning, NodeFiles], Any]]] = {
    "OwnPlan": (OwnPlan, choose_own),
    "ClusterPlan": (ClusterPlan, find_clusters),
    "ScorePlan": (ScorePlan, score),
    "CountPlan": (CountPlan, count),
    "PickPlan": (PickPlan, pick),
}
