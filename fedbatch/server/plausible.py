"""What follows from the server's own plan must be true of the answer to it; else the answer is refused in words."""

import math
from typing import Any

import numpy as np
import torch

from fedbatch.clients import work as works
from fedbatch.controllers.phase import Phase
from fedbatch.core.random import Ints
from fedbatch.metrics.temperature import LEAST, MOST
from fedbatch.privacy.plan import PrivacyPlan
from fedbatch.server.server import Server
from fedbatch.wire.check import MessageError, SquaredLengths, require
from fedbatch.wire.held_out import (
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
from fedbatch.wire.schema import Vector

ROUNDING, LEAST_LENGTH = 0.05, 1e-5
"""By how much a sum may be longer than its parts: relatively, as low precision rounds, and in all."""
LARGEST = 1e80
"""Of squared lengths: more is beyond float32, and its square beyond float64."""
SLACK = 1e-9
"""Of a task's sums, an example, which are rounded."""
TAIL = 12.0
"""Standard deviations that noise never passes (1e-32)."""


def check_update(answer: Contribution | Updates, squares: SquaredLengths) -> None:
    """A sum is no longer than its parts together, and numbers about clients are such as there can be.

    Raises:
        MessageError: it is longer, or they are not.
    """
    require(bool((np.abs(answer.losses) <= LARGEST).all()), "losses are beyond what can be added up")
    if isinstance(answer, Updates):
        require(squares.get("updates", 0.0) <= LARGEST, "updates are beyond what can be added up")
        return
    require(bool((answer.sq_norms <= LARGEST).all()), "sq_norms are beyond what can be added up")
    weight, longest = float(answer.weights.sum()), float(answer.weights @ np.sqrt(answer.sq_norms))
    require(
        length(squares, "update_sum") <= (1 + ROUNDING) * longest + LEAST_LENGTH * weight,
        "update_sum is longer than its clients' updates together, by sq_norms",
    )
    require(
        length(squares, "buffer_sum") <= math.sqrt(LARGEST) * max(weight, 1.0),
        "buffer_sum is beyond what can be added up",
    )
    require(
        length(squares, "extra_sums") <= math.sqrt(LARGEST) * max(weight, 1.0),
        "extra_sums are beyond what can be added up",
    )
    require(
        length(squares, "unit_sum") <= (1 + ROUNDING) * len(answer.clients) + LEAST_LENGTH,
        "unit_sum is longer than so many unit vectors",
    )
    if len(answer.half_dots) and len(answer.half_sq_diffs):
        # Of halves h, with shares of at least a third: h1'h2 <= 9/8 |g|^2 and >= -|h1 - h2|^2 / 4.
        highest = 1.125 * (1 + ROUNDING) * answer.sq_norms + LEAST_LENGTH
        lowest = -(1 + ROUNDING) * answer.half_sq_diffs / 2 - LEAST_LENGTH
        require(bool((answer.half_sq_diffs >= 0).all()), "half_sq_diffs must not be negative")
        require(bool((answer.half_sq_diffs <= LARGEST).all()), "half_sq_diffs are beyond what can be added up")
        inside = (lowest <= answer.half_dots) & (answer.half_dots <= highest)
        require(bool(inside.all()), "half_dots are not those of halves of such updates")


def check_besides(work: Any, answer: Contribution, plan: TrainPlan) -> None:
    """What is sent besides updates is no longer than it can be, where the client work knows.

    Raises:
        MessageError: it is longer.
    """
    if not len(answer.extra_sums) or not hasattr(work, "longest"):
        return
    extras, sizes = (works.lengths(work, kind, plan.params, plan.buffers) for kind in ("extras", "shared"))
    updates, weight = float(answer.weights @ np.sqrt(answer.sq_norms)), float(answer.weights.sum())
    steps = float(answer.weights @ answer.num_examples)  # a step has at least one example
    most = work.longest(updates, weight, steps, works.split(plan.shared, sizes))
    for name, vector in works.split(answer.extra_sums, extras).items():
        limit = (1 + ROUNDING) * most[name] + LEAST_LENGTH * weight
        require(float(vector.double().norm()) <= limit, f"extra_sums: {name} is longer than updates allow")


def check_private(
    server: Server,
    privacy: PrivacyPlan,
    phase: Phase,
    answer: PrivateContribution,
    plan: PrivatePlan,
    squares: SquaredLengths,
) -> None:
    """The sums of a release have its coordinates, and are no longer than clipping and noise allow.

    Raises:
        MessageError: they are not.
    """
    dtype = torch.float64 if privacy.mechanism.lattice else plan.params.dtype
    require(answer.update_sum.dtype == dtype, f"update_sum must be {dtype}")
    require(answer.extra_sums.dtype == torch.float64, "extra_sums must be float64")
    number = privacy.num_extras(phase)
    require(len(answer.extra_sums) == number, f"extra_sums must have length {number} (got {len(answer.extra_sums)})")
    count, size = len(plan.clients), plan.params.numel()
    mechanism, norm = privacy.mechanism, plan.clip_norm
    shares = 0.0 if mechanism.server_adds_noise else mechanism.noise_shares(1)
    noise = privacy.release_noise(phase, norm, shares, size)
    units = float(privacy.terms.sizes[plan.clients].sum()) if mechanism.clips_examples else float(count)
    noise_length = noise.update * (math.sqrt(size) + TAIL)
    limit = units * norm + math.sqrt(count) * noise_length
    work: Any = server.task.work(phase.name)
    if mechanism.clips_examples and not work.is_gradient:
        sizes = privacy.terms.sizes[plan.clients].astype(np.float64)
        step = (sizes * norm + noise_length) / (privacy.terms.sample_rate(phase) * np.maximum(sizes, 1))
        growth = (1 + work.lr * work.proximal) ** np.arange(privacy.steps(phase), dtype=np.float64)
        limit = float(sizes @ (work.lr * step * growth.sum()))
    grid = privacy.grid(phase, norm)
    update, extras = length(squares, "update_sum"), answer.extra_sums.cpu().numpy()
    if grid:
        whole = torch.equal(answer.update_sum, answer.update_sum.round()) and bool((extras == np.round(extras)).all())
        require(whole, "update_sum and extra_sums must be whole numbers")
        update, extras = update * grid.update, extras * grid.extras
        noise_length += grid.update * math.sqrt(size)  # of rounding
    require(
        update <= min((1 + ROUNDING) * limit + LEAST_LENGTH, math.sqrt(LARGEST)),
        "update_sum is longer than clipping and noise allow",
    )
    spread = TAIL * math.sqrt(count) * (privacy.extra_deviations(phase, noise) if shares else np.zeros(number))
    most = [units * norm**2] if privacy.has_squares(phase) else []
    most += [units / 2] if privacy.follows_quantile else []
    least = [0.0] if privacy.has_squares(phase) else []
    least += [-units / 2] if privacy.follows_quantile else []
    high = np.minimum((1 + ROUNDING) * np.array(most) + spread + LEAST_LENGTH, LARGEST)
    low = np.maximum(np.array(least) - spread - LEAST_LENGTH, -LARGEST)
    require(bool(((low <= extras) & (extras <= high)).all()), "extra_sums are not within what clipping and noise allow")


def check_evaluation(server: Server, answer: Evaluation, *_: object) -> None:
    """Nobody's sums are more than so many examples can give, or of more examples than there can be.

    Raises:
        MessageError: somebody does.
    """
    most = most_held_out(server, answer.clients)
    require(bool((answer.counts <= most).all()), "counts are more than clients can hold out")
    require(answer.score_sums.dtype == torch.float64, "score_sums must be float64")
    least, most_each = server.task.learning.bounds()
    size = len(answer.clients) * len(least)
    require(len(answer.score_sums) == size, f"score_sums must have length {size} (got {len(answer.score_sums)})")
    sums, counts = answer.score_sums.cpu().numpy().reshape(-1, len(least)), answer.counts[:, None].astype(np.float64)
    low, high = (np.multiply(counts, each, out=np.zeros(sums.shape), where=counts > 0) for each in (least, most_each))
    slack = SLACK * counts
    inside = (low - slack <= sums) & (sums <= high + slack) & (np.abs(sums) <= LARGEST)
    require(bool(inside.all()), "score_sums are not within what so many examples can give")
    there = answer.counts > 0
    try:
        server.task.columns(counts[there, 0], sums[there], "client_")
    except Exception as error:  # what else must hold of sums only the task knows, which may be anybody's
        raise MessageError(f"score_sums give no scores: {error}") from error
    require(bool((answer.loss_sums[answer.counts == 0] == 0).all()), "loss_sums of no example must be 0")
    require(bool((np.abs(answer.loss_sums) <= LARGEST).all()), "loss_sums are beyond what can be added up")


def check_sums(server: Server, size: int, answer: Sums, plan: SumsPlan | SlopePlan, *_: object) -> None:
    """Sums have the length of their statistic and the values that so many predictions can give.

    Raises:
        MessageError: they do not.
    """
    require(answer.sums.shape == (size,), f"sums must have length {size} (got {len(answer.sums)})")
    require(answer.sums.dtype == torch.float64, "sums must be float64")
    values = answer.sums.cpu().numpy()
    labels = server.task.train_y.shape[1] if server.task.train_y.dim() == 2 else 1
    examples = float(most_held_out(server, plan.clients).sum())
    if isinstance(plan, SlopePlan):
        check_slope(server, examples, values, plan)
        return
    most = np.full(size, examples * labels)
    if plan.statistic == "scores":
        most = most * [1, LARGEST, 2, 1]
    least = np.zeros(size)
    if plan.statistic == "scaled_nll":
        most, least[1] = np.full(size, LARGEST), -LARGEST
    slack = 1e-6 * (1 + np.minimum(most, 1e12))
    inside = (least - slack <= values) & (values <= most + slack)
    require(bool(inside.all()), f"sums are not within what {examples:.0f} held-out examples can give")


def check_slope(server: Server, examples: float, values: Vector, plan: SlopePlan) -> None:
    """A sum of clipped values is no larger than clipping and noise allow.

    Raises:
        MessageError: it is larger.
    """
    privacy = server.task.privacy
    assert privacy is not None  # only private runs ask
    mechanism, count = privacy.mechanism, len(plan.clients)
    units = examples if mechanism.clips_examples else float(count)
    share = 0.0 if mechanism.server_adds_noise else mechanism.noise_shares(1)
    noise = privacy.question_noise(plan.statistic) * plan.clip_norm * math.sqrt(share * count)
    limit = units * plan.clip_norm * (1 + 1e-6) + TAIL * noise
    require(bool(np.abs(values).max() <= limit), "sums are larger than clipping and noise allow")


def check_temperatures(answer: Temperatures, *_: object) -> None:
    """Temperatures are in the range that is searched.

    Raises:
        MessageError: one is not.
    """
    inside = (answer.temperatures >= LEAST * (1 - 1e-6)) & (answer.temperatures <= MOST * (1 + 1e-6))
    require(bool(inside.all()), f"temperatures must be in {LEAST:g} .. {MOST:g}")


def most_held_out(server: Server, clients: Ints) -> Ints:
    """The most examples (K,) that clients hold out, by what they train on and the run's ``client_holdout``."""
    known = server.task.partition.whole.sizes(clients)
    told = server.hosts.examples_of(clients)
    share = server.task.config.client_holdout
    return np.maximum(known, np.ceil(told * share / (1 - share)).astype(np.int64) + 1)


def length(squares: SquaredLengths, name: str) -> float:
    """Euclidean length of a vector, 0 of an empty one. What float32 takes for 0 is far below `LEAST_LENGTH`."""
    return math.sqrt(squares.get(name, 0.0))
