"""Local steps of SGD with momentum, Nesterov's or Polyak's, weight decay, clipped gradients and a schedule."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.clients.schedule import Schedule, check, clipped, rate
from fedbatch.clients.work import Finished, Lengths, Moment, Vectors


@dataclass(frozen=True)
class LocalMomentum(LocalSGD):
    """`LocalSGD` by the formulas of `torch.optim.SGD`; the update is start minus end.

    Attributes:
        momentum: beta in [0, 1).
        nesterov: whether to step along ``g + beta v`` (Nesterov) and not along ``v``.
        weight_decay: added to the gradient times the parameters, >= 0.
        clip_norm: longest gradient of a batch, > 0; None = any. It is no privacy.
        schedule: factor of ``lr``; None = 1.
        keep: whether clients keep their momentum from round to round; else it begins with 0.
    """

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    clip_norm: float | None = None
    schedule: Schedule | None = None
    keep: bool = False

    is_plain_sgd = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.clip_norm, self.schedule)
        if not 0 <= self.momentum < 1 or self.weight_decay < 0:
            raise ValueError("client_work: momentum must be in [0, 1) and weight_decay >= 0")

    @property
    def own(self) -> Lengths:
        """The momentum, if it is kept."""
        return {"momentum": "params"} if self.keep else {}

    def start(self, params: Tensor, shared: Vectors, own: Vectors) -> tuple[Tensor, Vectors]:
        """From the global parameters."""
        return params, {"momentum": own["momentum"] if self.keep else torch.zeros_like(params)}

    def step(
        self, params: Tensor, point: Tensor, gradient: Tensor, carry: Vectors, now: Moment
    ) -> tuple[Tensor, Vectors]:
        """``v <- beta v + g; w <- w - lr v``, or ``- lr (g + beta v)`` with Nesterov's momentum."""
        gradient = clipped(gradient + self.proximal * (point - params), self.clip_norm) + self.weight_decay * point
        velocity = self.momentum * carry["momentum"] + gradient
        along = gradient + self.momentum * velocity if self.nesterov else velocity
        return point - rate(self.lr, self.schedule, now) * along, {"momentum": velocity}

    def finish(self, params: Tensor, point: Tensor, carry: Vectors, steps: Tensor) -> Finished:
        """Start minus end."""
        return Finished(params - point, {}, carry if self.keep else {})
