"""Local steps of Adam or AdamW, with clipped gradients and a schedule."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.clients.schedule import Schedule, check, clipped, rate
from fedbatch.clients.work import Finished, Lengths, Moment, Vectors


@dataclass(frozen=True)
class LocalAdam(LocalSGD):
    """Local steps by the formulas of `torch.optim.Adam` (Kingma and Ba 2015); the update is start minus end.

    Attributes:
        betas: of the first and second moment, in [0, 1).
        eps: added to the root of the second moment, > 0.
        weight_decay: >= 0.
        decoupled_weight_decay: whether weights decay beside the gradient (AdamW, Loshchilov and Hutter 2019) or in it.
        clip_norm: longest gradient of a batch, > 0; None = any. It is no privacy.
        schedule: factor of ``lr``; None = 1.
        keep: whether clients keep their moments from round to round; else they begin with 0.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled_weight_decay: bool = False
    clip_norm: float | None = None
    schedule: Schedule | None = None
    keep: bool = False

    is_plain_sgd = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.clip_norm, self.schedule)
        pair: Any = self.betas
        if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(b, float | int) for b in pair):
            raise ValueError(f"client_work.betas must be two numbers, e.g. [0.9, 0.999] (got {pair!r})")
        if not all(0 <= beta < 1 for beta in self.betas) or self.eps <= 0 or self.weight_decay < 0:
            raise ValueError("client_work: betas must be in [0, 1), eps > 0 and weight_decay >= 0")

    @property
    def own(self) -> Lengths:
        """The moments and the number of steps that they stand on, if they are kept."""
        return {"first": "params", "second": "params", "count": 1} if self.keep else {}

    def start(self, params: Tensor, shared: Vectors, own: Vectors) -> tuple[Tensor, Vectors]:
        """From the global parameters."""
        zeros = torch.zeros_like(params)
        return params, dict(own) if self.keep else {"first": zeros, "second": zeros, "count": zeros[..., :1]}

    def step(
        self, params: Tensor, point: Tensor, gradient: Tensor, carry: Vectors, now: Moment
    ) -> tuple[Tensor, Vectors]:
        """One step of Adam."""
        lr, count, (beta_1, beta_2) = rate(self.lr, self.schedule, now), carry["count"] + 1, self.betas
        gradient = clipped(gradient + self.proximal * (point - params), self.clip_norm)
        if not self.decoupled_weight_decay:
            gradient = gradient + self.weight_decay * point
        first = beta_1 * carry["first"] + (1 - beta_1) * gradient
        second = beta_2 * carry["second"] + (1 - beta_2) * gradient**2
        along = first / (1 - beta_1**count) / ((second / (1 - beta_2**count)).sqrt() + self.eps)
        decayed = point * (1 - lr * self.weight_decay) if self.decoupled_weight_decay else point
        return decayed - lr * along, {"first": first, "second": second, "count": count}

    def finish(self, params: Tensor, point: Tensor, carry: Vectors, steps: Tensor) -> Finished:
        """Start minus end."""
        return Finished(params - point, {}, carry if self.keep else {})
