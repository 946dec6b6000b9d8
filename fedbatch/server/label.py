"""The loop around the rounds: query where one is due, then train on what is labelled."""

import logging
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fedbatch.active.labels import Labels
from fedbatch.active.learning import ActiveLearning
from fedbatch.core.random import Ints, generator
from fedbatch.server.optimizer import ServerOptimizer
from fedbatch.server.query import Poll, choose_own, choose_together, cluster_pools
from fedbatch.server.server import Server
from fedbatch.server.state import ServerState
from fedbatch.wire.queries import Labelled

log = logging.getLogger("fedbatch")


def with_labels(server: Server, state: ServerState) -> tuple[Server, ServerState]:
    """The server as it is to train in this round, after the query that comes before it, if one does."""
    active = server.task.active
    if active is None:
        return server, state
    if active.is_due(state.round, server.task.config.rounds):
        state = query(server, active, state)
    return replace(server, hosts=replace(server.hosts, num_examples=state.labels.num_labelled.numpy())), state


def query(server: Server, active: ActiveLearning, state: ServerState) -> ServerState:
    """Ask for labels: the seed labels before round 0, later those that the selector wants."""
    start, poll = time.perf_counter(), Poll(server, active.query_of(state.round, server.task.config.rounds))
    labels = state.labels
    if poll.query == 0:
        answers = choose_own(poll, None, shares(server, server.hosts.num_examples, active.seed_labels, 0))
    elif active.scope == "local_only":
        unlabelled = server.hosts.num_examples - labels.num_labelled.numpy()
        answers = choose_own(poll, state, shares(server, unlabelled, active.labels_per_query, poll.query))
    else:
        if poll.query == 1 and active.selector.uses_clusters:
            found = cluster_pools(poll, state)
            sizes = torch.tensor([len(own) for own in found])
            labels = replace(labels, groups=torch.from_numpy(np.concatenate(found)), node_clusters=sizes)
        groups = [own.numpy() for own in labels.groups.split(labels.node_clusters.tolist())]
        answers = choose_together(poll, state, groups, active.labels_per_query)
    took = time.perf_counter() - start
    labels = replace(
        labels,
        num_labelled=torch.from_numpy(by_client(answers)),
        columns=columns(poll, labels, answers, took if server.task.privacy is None else float(int(took))),
    )
    tell(labels.columns)
    return replace(reset_training(server, state) if active.retrain and poll.query else state, labels=labels)


def shares(server: Server, available: Ints, wanted: int, index: int) -> Ints:
    """Labels of each client (P,), as drawing ``wanted`` of all available examples would spread them."""
    draw = generator(server.task.config.seed, "label shares", index)
    return draw.multivariate_hypergeometric(available, min(wanted, int(available.sum())), method="marginals")


def by_client(answers: list[Labelled]) -> Ints:
    """Labels of each client (P,), in the order of ids."""
    order = np.argsort(np.concatenate([answer.clients for answer in answers]))
    return np.asarray(np.concatenate([answer.num_labelled for answer in answers])[order], np.int64)


def columns(poll: Poll, labels: Labels, answers: list[Labelled], seconds: float) -> dict[str, Any]:
    """Columns of the record until the next query; bytes and seconds are those of all queries so far."""
    classes = np.sum([answer.class_counts for answer in answers], axis=0)
    by_group = np.sum([answer.group_counts for answer in answers], axis=0)
    before = labels.columns or {"query_bytes_down": 0, "query_bytes_up": 0, "query_seconds": 0.0}
    return {
        "queries": poll.query,
        "labels_used": sum(int(answer.num_labelled.sum()) for answer in answers),
        "clusters_covered": int(np.count_nonzero(by_group)) if len(by_group) else None,
        "clusters": len(by_group) or None,
        "class_balance": balance(classes) if len(classes) else None,
        "query_bytes_down": before["query_bytes_down"] + poll.bytes_down,
        "query_bytes_up": before["query_bytes_up"] + poll.bytes_up,
        "query_seconds": before["query_seconds"] + seconds,
    }


def balance(counts: Ints) -> float:
    """Entropy of class counts (classes,) over its largest value: 1 for equal counts, 0 for one class.

    >>> balance(np.array([5, 5, 0, 0]))
    0.5
    """
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log(shares)).sum() / np.log(len(counts)))


def tell(columns: dict[str, Any]) -> None:
    """One line for each query."""
    clusters = f", in {columns['clusters_covered']} of {columns['clusters']} clusters" if columns["clusters"] else ""
    megabytes = (columns["query_bytes_down"] + columns["query_bytes_up"]) / 1e6
    name = f"query {columns['queries']}" if columns["queries"] else "seed labels"
    log.info("%s: %d labels%s, %.2f MB of queries so far", name, columns["labels_used"], clusters, megabytes)


def reset_training(server: Server, state: ServerState) -> ServerState:
    """The state with model, optimizer and noise-scale averages as at the start; rounds and costs go on.

    A phase that was chosen by what training showed is forgotten too; one that a schedule of rounds sets goes on, as
    privacy has priced it.
    """
    fresh = ServerOptimizer(server.task.new_model(), server.task.config.server_optimizer)
    server.optimizer.model.load(fresh.model.params, fresh.model.buffers)  # which are the state's
    server.optimizer.load_state_dict(fresh.state_dict())
    controller = server.task.controller
    return replace(
        state,
        optimizer=server.optimizer.state_dict(),
        control=controller.start() if controller.adaptive else state.control,
        averages=state.averages.restarted(),
        average={},
        lr_factor=1.0,
        lr_factor_before=1.0,
    )
