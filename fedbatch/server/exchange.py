"""Sending plans to nodes and reading their answers; what is not valid is left out and named."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from flwr.serverapp import Grid

from fedbatch.config.checks import CHOICES
from fedbatch.config.schema import RunConfig
from fedbatch.core.errors import RunFailedError
from fedbatch.server.ask import ask
from fedbatch.server.hosts import in_words
from fedbatch.wire.check import MessageError, SquaredLengths
from fedbatch.wire.held_out import (
    EvaluatePlan,
    Evaluation,
    SlopePlan,
    Sums,
    SumsPlan,
    Temperatures,
)
from fedbatch.wire.messages import (
    Contribution,
    PrivateContribution,
    PrivatePlan,
    TrainPlan,
    Updates,
)

log = logging.getLogger("fedbatch")
Answer = TypeVar("Answer", Contribution, Updates, PrivateContribution, Evaluation, Sums, Temperatures)

Plan = TrainPlan | PrivatePlan | EvaluatePlan | SumsPlan | SlopePlan


class NoAnswerError(RunFailedError):
    """No node gave a valid answer, so the round cannot be completed."""


VECTORS = {
    "update_sum": "params",
    "extra_sums": "params",
    "unit_sum": "params",
    "updates": "params",
    "buffer_sum": "buffers",
}
"""The vectors of an answer, and those of the plan whose dtype they have."""

MESSAGE_TYPE = {
    Contribution: "train",
    Updates: "train",
    PrivateContribution: "train",
    Evaluation: "evaluate",
    Sums: "evaluate.sums",
    Temperatures: "evaluate.temperatures",
}


def exchange(
    grid: Grid,
    plans: Mapping[int, Plan],
    kind: type[Answer],
    config: RunConfig,
    round_: int,
    check: Callable[[Any, Any, SquaredLengths], None] | None = None,
    secret: bool = False,
) -> tuple[list[Answer], dict[int, str]]:
    """Send each node its plan and collect the answers; arguments and errors as in `exchange_in_turn`.

    Returns:
        The valid answers by ascending client, and the reason for each node whose answer was rejected.
    """
    (answers,), rejected = exchange_in_turn(grid, [plans], kind, config, round_, check, secret)
    return answers, rejected


def exchange_in_turn(
    grid: Grid,
    turns: Sequence[Mapping[int, Plan]],
    kind: type[Answer],
    config: RunConfig,
    round_: int,
    check: Callable[[Any, Any, SquaredLengths], None] | None = None,
    secret: bool = False,
    opened: Callable[[Any, Any], Any] = lambda answer, plan: answer,
) -> tuple[list[list[Answer]], dict[int, str]]:
    """Send each node its plan and collect the answers, as often as there are turns.

    Args:
        grid: where the nodes are.
        turns: the plans of each turn, one for each node.
        kind: of the answers.
        config: gives the time limit, and the clients without whom a round fails.
        round_: index of the round.
        check: raises `MessageError` for an answer to a plan that the schema allows and the run does not; told the
            squared lengths of the answer's vectors.
        secret: whether nobody may know who was asked: then nothing is logged, and an error names no numbers.
        opened: as in `ask`.

    Returns:
        The valid answers of each turn by ascending client, and the reason for each node of which one was rejected.

    Raises:
        NoAnswerError: the valid answers of all turns are from fewer clients than ``min_clients``.
    """

    def check_all(answer: Answer, plan: Any, squares: SquaredLengths) -> None:
        check_clients(answer, plan, config.executor == "auto")
        if check is not None:
            check(answer, plan, squares)

    timeout, action = config.round_timeout_seconds, MESSAGE_TYPE[kind]
    found: list[list[Answer]] = []
    rejected: dict[int, str] = {}
    named: dict[str, str] = {}
    for plans in turns:
        replies = ask(grid, plans, kind, action, str(round_), timeout, answer_lengths, check_all, opened)
        found.append(sorted(replies.answers.values(), key=lambda answer: tuple(answer.clients[:1])))
        rejected |= replies.rejected
        named |= {in_words(node, plans[node].clients): reason for node, reason in replies.rejected.items()}
    asked = sum(len(plan.clients) for plans in turns for plan in plans.values())
    clients = sum(len(answer.clients) for answers in found for answer in answers)
    silent = any(turns) and not any(found)
    refuse_too_few(silent, clients, asked, named, config.min_clients, round_, secret)
    if not secret:
        tell_left_out(named)
    return found, rejected


def refuse_too_few(
    silent: bool, clients: int, asked: int, rejected: Mapping[str, str], least: int, round_: int, secret: bool
) -> None:
    """Raise where a round cannot be completed with the ``clients`` whose answers are valid, or all nodes are silent.

    Raises:
        NoAnswerError: they are fewer than ``least``.
    """
    reasons = (f"{node}: {reason}" for node, reason in rejected.items())
    needed, first = min(least, asked), next(reasons, "their updates were not finite")
    if secret and (silent or clients < needed):
        raise NoAnswerError(f"too few valid answers in round {round_} (min_clients={least}); who was asked is a secret")
    if silent:
        raise NoAnswerError(f"no node gave a valid answer in round {round_}: {first}")
    # With nobody missing and no finite update at all, training has diverged, which `combine` says better.
    if (clients or rejected) and clients < needed:
        raise NoAnswerError(
            f"valid answers of {clients} clients in round {round_}, fewer than min_clients={least}: {first}"
        )


def tell_left_out(rejected: Mapping[str, str]) -> None:
    """A line for each reason that is new, with the node that gave it first."""
    for node, reason in rejected.items():
        if next(news(reason), False):
            log.warning("an answer of %s was left out: %s (told once; see rejected_replies)", node, reason)


@lru_cache(maxsize=256)
def news(reason: str) -> Iterator[bool]:
    """True the first time in a process: a reason is told of the first node that gives it."""
    return iter([True])


@lru_cache(maxsize=256)
def tell_once(line: str) -> None:
    """One line in a process, not one for each node and round: the record counts them all."""
    log.warning("%s", line)


def answer_lengths(plan: Plan) -> dict[str, int]:
    """Lengths of the vectors that answer ``plan``."""
    if isinstance(plan, EvaluatePlan | SumsPlan | SlopePlan):
        return {}
    if isinstance(plan, PrivatePlan):
        return {"update_sum": plan.params.numel()}
    size = plan.params.numel()
    if plan.single:
        return {}
    return {
        "update_sum": 0 if plan.payload else size,
        "buffer_sum": plan.buffers.numel(),
        "unit_sum": size if plan.cosine else 0,
        "extra_sums": plan.extras,
    }


def check_clients(answer: Any, plan: Plan, automatic: bool = False) -> None:
    """A node answers the plan of this round, for all the clients it was asked for, and for no others.

    With ``automatic`` a node may take another executor than it was asked for, if that one is wrong there.

    Raises:
        MessageError: it does not.
    """
    asked = getattr(plan, "round", None)
    if (number := getattr(answer, "round", asked)) != asked:
        raise MessageError(f"round is {number}, of an earlier plan; this is round {asked}")
    answered = answer.clients
    if isinstance(answer, Contribution | Updates):
        answered = np.sort(np.concatenate([answered, answer.excluded]))
    if not np.array_equal(answered, plan.clients):
        raise MessageError("clients are not those that were asked for")
    if isinstance(answer, Contribution | Updates) and isinstance(plan, TrainPlan):
        check_work(answer, plan, automatic)


def check_work(answer: Contribution | Updates, plan: TrainPlan, automatic: bool) -> None:
    """Vectors are of the model's dtype, and the work is of the kind that was asked for.

    Raises:
        MessageError: they are not.
    """
    if isinstance(answer, Updates):
        length = len(answer.clients) * plan.params.numel()
        if len(answer.updates) != length:
            raise MessageError(f"updates must have length {length} (got {len(answer.updates)})")
    else:
        if len(answer.half_dots) and not plan.halves:
            raise MessageError("half_dots were not asked for")
        check_payload(answer, plan)
    kept = int(np.count_nonzero(plan.versions))
    if not 0 <= answer.lost <= kept:
        raise MessageError(f"lost must be in 0 .. {kept}, the clients that were to go on from what they keep")
    for name, model in VECTORS.items():
        values = getattr(answer, name, None)
        if values is not None and values.numel() and values.dtype != getattr(plan, model).dtype:
            raise MessageError(f"{name} must be {getattr(plan, model).dtype} (got {values.dtype})")
    asked = "loop" if plan.single else "auto" if automatic else plan.executor
    if answer.executor not in (CHOICES["executor"] if asked == "auto" else (asked,)):
        raise MessageError(f"executor must be {asked} (got {answer.executor!r})")


def check_payload(answer: Contribution, plan: TrainPlan) -> None:
    """There are as many bytes and numbers about them as were asked for.

    Raises:
        MessageError: there are not.
    """
    count = len(answer.clients)
    if len(answer.payload) != count * plan.payload:
        raise MessageError(f"payload must have {count * plan.payload} bytes (got {len(answer.payload)})")
    for name in ("sq_errors", "sent_sq_norms"):
        if len(getattr(answer, name)) != (count if plan.payload else 0):
            raise MessageError(f"{name} must have one entry for each compressed update")
