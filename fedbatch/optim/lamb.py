"""LAMB: Adam with decay, each tensor's step scaled to the norm of its weights."""

import math
from typing import Any

import torch
from torch import Tensor

from fedbatch.optim.layerwise import Group, Layerwise, State, Tensors, check_betas, moments, quotient


class LAMB(Layerwise):
    """Layer-wise adaptive moments for batch training.

    For each tensor w with gradient g of the same shape, any shape, and norms over all its elements::

        m = beta1 * m + (1 - beta1) * g            v = beta2 * v + (1 - beta2) * g^2       both 0 at first
        d = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * w
        w = w - lr * ratio * d                     ratio = phi(|w|) / |d|,  phi(z) = min(max(z, phi_min), phi_max)

    so that a step has norm ``lr * phi(|w|)`` whatever the gradient's scale. The ratio is 1 where phi(|w|) or |d| is 0.

    Args:
        params: tensors, or groups of them, as for any torch optimizer.
        lr: >= 0, the relative change of a tensor in a step.
        betas: decay rates of m and v, in [0, 1).
        eps: >= 0. Federated work takes 1e-3, with betas (0.9, 0.99) (Charles et al. 2021).
        weight_decay: >= 0, within the direction.
        phi_min, phi_max: bounds of phi. The paper gives no values, so by default phi is the identity.
        exclude_1d: step tensors of at most one axis (biases, norms) with ratio 1 and without decay.
        maximize: ascend.

    Source: You et al. 2020, arXiv 1904.00962, algorithm 2; zero norms as in the authors' code.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        phi_min: float = 0.0,
        phi_max: float = math.inf,
        exclude_1d: bool = False,
        maximize: bool = False,
    ):
        check_betas(betas)
        if not 0 <= phi_min <= phi_max:
            raise ValueError(f"phi_min must be between 0 and phi_max (got {phi_min} and {phi_max})")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "exclude_1d": exclude_1d}
        super().__init__(params, defaults | {"phi_min": phi_min, "phi_max": phi_max, "maximize": maximize})

    def _update(self, group: Group, params: Tensors, grads: Tensors, states: list[State], adapt: bool) -> Tensor:
        beta1, beta2 = group["betas"]
        means, squares = moments(group, grads, states)
        for state in states:
            state["step"] = state.get("step", 0) + 1
        first = [1 - beta1 ** state["step"] for state in states]
        second = [1 - beta2 ** state["step"] for state in states]
        denominators = list(torch._foreach_sqrt(squares))
        torch._foreach_mul_(denominators, [a / math.sqrt(b) for a, b in zip(first, second, strict=True)])
        torch._foreach_add_(denominators, [a * group["eps"] for a in first])
        directions = list(torch._foreach_div(means, denominators))
        if group["weight_decay"]:
            torch._foreach_add_(directions, params, alpha=group["weight_decay"])
        ratios = grads[0].new_ones(len(params))
        if adapt:
            norms = torch.stack(torch._foreach_norm(params)).clamp(group["phi_min"], group["phi_max"])
            ratios = quotient(norms, torch.stack(torch._foreach_norm(directions)))
        torch._foreach_mul_(directions, (-group["lr"] * ratios).tolist())
        torch._foreach_add_(params, directions)
        return ratios
