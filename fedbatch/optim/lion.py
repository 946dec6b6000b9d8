"""Lion: the sign of an interpolation between momentum and gradient."""

from collections.abc import Callable
from typing import Any

import torch

from fedbatch.optim.layerwise import check_betas


class Lion(torch.optim.Optimizer):
    """Evolved sign momentum; with ``betas=(0, 0)`` it is signSGD.

    For each tensor w with gradient g::

        w = w - lr * (sign(beta1 * m + (1 - beta1) * g) + weight_decay * w)
        m = beta2 * m + (1 - beta2) * g                         m = 0 at first

    Args:
        params: tensors, or groups of them, as for any torch optimizer.
        lr: >= 0, by which every coordinate moves; a third to a tenth of AdamW's.
        betas: in [0, 1).
        weight_decay: >= 0, besides the step.

    Source: Chen et al. 2023, arXiv 2302.06675, algorithm 2.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0):
        check_betas(betas)
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise ValueError(f"{name} must be at least 0 (got {value})")
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; returns what ``closure``, called first and with gradients on, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["exp_avg"] = torch.zeros_like(p)
                step = torch.lerp(p.grad, state["exp_avg"], beta1).sign_()
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-group["lr"])
                state["exp_avg"].lerp_(p.grad, 1 - beta2)
        return loss
