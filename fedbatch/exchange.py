"""Sending plans to nodes and reading their answers; what is not valid is left out and named."""

import logging
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from flwr.serverapp import Grid

from fedbatch.config import RunConfig
from fedbatch.errors import RunFailedError
from fedbatch.hosts import Hosts
from fedbatch.messages import (
    Contribution,
    EvaluatePlan,
    Evaluation,
    MessageError,
    PrivateContribution,
    PrivatePlan,
    TrainPlan,
    decode,
    encode,
)
from fedbatch.runtime import flower
from fedbatch.state import ServerState

log = logging.getLogger("fedbatch")
Answer = TypeVar("Answer", Contribution, PrivateContribution, Evaluation)

Plan = TrainPlan | PrivatePlan | EvaluatePlan


class NoAnswerError(RunFailedError):
    """No node gave a valid answer, so the round cannot be completed."""


MESSAGE_TYPE = {Contribution: "train", PrivateContribution: "train", Evaluation: "evaluate"}


def exchange(
    grid: Grid,
    plans: Mapping[int, Plan],
    kind: type[Answer],
    config: RunConfig,
    round_: int,
) -> tuple[list[Answer], dict[int, str]]:
    """Send each node its plan and collect the answers.

    Returns:
        The valid answers by ascending client, and the reason for each node whose answer was rejected.

    Raises:
        NoAnswerError: there is no valid answer.
    """
    answers: list[Answer] = []
    rejected: dict[int, str] = {}
    waiting = dict(plans)
    messages = [
        grid.create_message(encode(plan), MESSAGE_TYPE[kind], node, str(round_)) for node, plan in plans.items()
    ]
    for reply in grid.send_and_receive(messages, timeout=config.round_timeout_seconds):
        node = reply.metadata.src_node_id
        plan = waiting.pop(node, None)
        if plan is None:  # a duplicate or a stray: the node's answer has been counted
            continue
        try:
            if reply.has_error():
                raise MessageError(flower.reason(reply.error))
            answer = decode(kind, reply.content, answer_lengths(plan))
            check_clients(answer, plan)
            answers.append(answer)
        except MessageError as error:
            rejected[node] = str(error)
    rejected |= {node: "no answer in time" for node in waiting}
    if plans and not answers:
        raise NoAnswerError(f"no node gave a valid answer in round {round_}: {next(iter(rejected.values()))}")
    for node, reason in rejected.items():
        log.warning("round %d: node %d left out: %s", round_, node, reason)
    return sorted(answers, key=lambda answer: tuple(answer.clients[:1])), rejected


def answer_lengths(plan: Plan) -> dict[str, int]:
    """Lengths of the vectors that answer ``plan``."""
    if isinstance(plan, EvaluatePlan):
        return {}
    if isinstance(plan, PrivatePlan):
        return {"update_sum": plan.params.numel()}
    size = plan.params.numel()
    return {
        "update_sum": size,
        "buffer_sum": plan.buffers.numel(),
        "unit_sum": size if plan.cosine else 0,
    }


def check_clients(answer: Contribution | PrivateContribution | Evaluation, plan: Plan) -> None:
    """A node answers for all the clients it was asked for, and for no others.

    Raises:
        MessageError: it does not.
    """
    answered = answer.clients
    if isinstance(answer, Contribution):
        answered = np.sort(np.concatenate([answered, answer.excluded]))
    if not np.array_equal(answered, plan.clients):
        raise MessageError("clients are not those that were asked for")


def per_client_accuracy(grid: Grid, hosts: Hosts, state: ServerState, config: RunConfig) -> dict[str, Any]:
    """Percentiles over clients of the accuracy on each client's own held-out examples."""
    plans = {
        node: EvaluatePlan(state.params, state.buffers, clients)
        for node, clients in hosts.by_node(hosts.clients).items()
    }
    answers, _ = exchange(grid, plans, Evaluation, config, state.round)
    counts = np.concatenate([a.counts for a in answers])
    correct = np.concatenate([a.correct for a in answers])
    accuracy = correct[counts > 0] / counts[counts > 0]
    percentiles = np.percentile(accuracy, [5, 25, 50, 75, 95]) if len(accuracy) else np.full(5, np.nan)
    return {f"client_accuracy_p{q}": float(v) for q, v in zip((5, 25, 50, 75, 95), percentiles, strict=True)}
