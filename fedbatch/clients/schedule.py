"""Learning-rate schedules of clients, over rounds and over the steps of a round, as factors of the rate."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fedbatch.clients.work import Moment


class Schedule(Protocol):
    """A schedule."""

    def __call__(self, now: Moment) -> Tensor | float:
        """The factor >= 0 of the learning rate in this step: a number, or (1,) for one client and (K, 1) for many."""
        ...


@dataclass(frozen=True)
class Exponential:
    """``per_round^round * per_step^step`` (Reddi et al. 2021, app. C, decay clients' rates so by rounds).

    Attributes:
        per_round: factor of every round, in (0, 1].
        per_step: factor of every step of a round, in (0, 1].
    """

    per_round: float = 1.0
    per_step: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.per_round <= 1 and 0 < self.per_step <= 1):
            raise ValueError("client_work.schedule: per_round and per_step must be in (0, 1]")

    def __call__(self, now: Moment) -> float:
        """See `Schedule`."""
        return self.per_round**now.round * self.per_step**now.step


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up, then half a cosine down to ``final``; each step of a round counts its share of the round.

    Attributes:
        rounds: at whose end the factor is ``final``, and stays so.
        warmup_rounds: over which the factor rises from 0 to 1.
        final: the last factor, in [0, 1].
    """

    rounds: int
    warmup_rounds: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_rounds < self.rounds or not 0 <= self.final <= 1:
            raise ValueError("client_work.schedule: warmup_rounds must be in [0, rounds) and final in [0, 1]")

    def __call__(self, now: Moment) -> Tensor:
        """See `Schedule`."""
        done = now.round + (now.step + (1 if now.round < self.warmup_rounds else 0)) / now.steps
        share = ((done - self.warmup_rounds) / (self.rounds - self.warmup_rounds)).clamp(0, 1)
        falling = self.final + (1 - self.final) * (1 + torch.cos(math.pi * share)) / 2
        return torch.minimum(falling, done / self.warmup_rounds) if self.warmup_rounds else falling


def check(clip_norm: float | None, schedule: Any) -> None:
    """Refuse what is no norm or no schedule.

    Raises:
        ValueError: naming it.
    """
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"client_work: clip_norm must be > 0, or null for none (got {clip_norm})")
    if schedule is not None and not callable(schedule):
        raise ValueError(
            f"client_work: schedule must be null or have a _target_, such as fedbatch.clients.Cosine (got {schedule})"
        )


def rate(lr: float, schedule: Schedule | None, now: Moment) -> Tensor | float:
    """The learning rate of a step."""
    return lr if schedule is None else lr * schedule(now)


def clipped(gradient: Tensor, norm: float | None) -> Tensor:
    """Gradients (d,) or (K, d), each no longer than ``norm``; as `torch.nn.utils.clip_grad_norm_` scales them."""
    if norm is None:
        return gradient
    return gradient * (norm / (gradient.norm(dim=-1, keepdim=True) + 1e-6)).clamp(max=1.0)
