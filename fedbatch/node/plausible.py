"""A node checks what it is asked against the config of the run, which it knows by itself."""

import math
from collections.abc import Mapping
from typing import Any

from fedbatch.clients.work import lengths
from fedbatch.core.random import Ints
from fedbatch.setup.nodes import hosted_range
from fedbatch.setup.task import Task
from fedbatch.wire.check import require
from fedbatch.wire.messages import PrivatePlan, TrainPlan


def check_hosted(clients: Ints, task: Task, node_config: Mapping[str, Any]) -> None:
    """The clients (K,), ascending, are this node's own.

    Raises:
        MessageError: one is not.
    """
    first, end = hosted_range(len(task.partition), node_config)
    own = not len(clients) or (first <= int(clients[0]) and int(clients[-1]) < end)
    require(own, f"this node hosts the clients {first} to {end - 1}, and is asked for others")


def check_round(round_: int, task: Task) -> None:
    """The round is one of the run, or the one after them all, in which temperatures are sought.

    Raises:
        MessageError: it is not.
    """
    require(round_ <= task.config.rounds, f"the run has {task.config.rounds} rounds, and is asked for round {round_}")


def check_work(plan: TrainPlan, task: Task) -> None:
    """What a plan says to the client work is what that work declares.

    Raises:
        MessageError: it is not.
    """
    model, work = task.node_model, task.work(plan.phase)
    sizes = {kind: lengths(work, kind, model.params, model.buffers) for kind in ("extras", "shared", "own")}
    number = {kind: sum(values.values()) for kind, values in sizes.items()}
    require(plan.extras == number["extras"], f"extras must be {number['extras']} (got {plan.extras})")
    require(
        len(plan.shared) == number["shared"], f"shared must have length {number['shared']} (got {len(plan.shared)})"
    )
    compression = task.compression
    payload = compression.num_bytes(len(model.params), model.params.dtype) if compression else 0
    require(plan.payload == payload, f"payload must be {payload} (got {plan.payload})")
    keeps = number["own"] or (compression is not None and compression.error_feedback)
    needed = len(plan.clients) if keeps else 0
    require(len(plan.versions) == needed, f"versions must have length {needed} (got {len(plan.versions)})")
    require(int(plan.versions.max(initial=0)) <= plan.round, "versions are of rounds to come")


def check_private_plan(plan: PrivatePlan, task: Task) -> None:
    """A private round is one of the run's phases, with a clip norm that the run may have.

    Raises:
        MessageError: it is not.
    """
    assert task.privacy is not None
    mechanism = task.privacy.mechanism
    known = any(phase.name == plan.phase for phase in task.controller.phases)
    require(known, f"the run has no phase {plan.phase!r}")
    require(0 < plan.cohort_size <= task.config.population, "cohort_size is more than there are clients")
    moves = mechanism.follows_quantile
    right = math.isclose(plan.clip_norm, mechanism.clip_norm, rel_tol=1e-6) or plan.clip_norm == mechanism.clip_norm
    positive = 0 < plan.clip_norm < math.inf
    require(positive if moves else right, f"clip_norm is not the run's (asked for {plan.clip_norm!r})")
