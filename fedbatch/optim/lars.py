"""LARS: momentum SGD with a learning rate for each layer, from the norms of its weights and of its gradient."""

from typing import Any

import torch
from torch import Tensor

from fedbatch.optim.layerwise import Group, Layerwise, State, Tensors


class LARS(Layerwise):
    """Layer-wise adaptive rate scaling.

    For each tensor w with gradient g of the same shape, any shape, and norms over all its elements::

        ratio = trust_coefficient * |w| / (|g| + weight_decay * |w| + eps)
        u = momentum * u + ratio * (g + weight_decay * w)         u = 0 before the first step
        w = w - lr * u

    The ratio is 1 where |w| or the denominator is 0. As in PyTorch's SGD, lr multiplies the buffer as a whole: with a
    constant lr that is the same as the paper's, which has lr within the buffer.

    Args:
        params: tensors, or groups of them, as for any torch optimizer.
        lr: >= 0, before the ratio.
        momentum: in [0, 1).
        weight_decay: >= 0, within the ratio and the direction.
        trust_coefficient: > 0, the share of its own norm by which a tensor moves at lr = 1.
        eps: >= 0, added to the denominator. The paper has none; federated work takes 1e-3 (Charles et al. 2021).
        exclude_1d: step tensors of at most one axis (biases, norms) with ratio 1 and without decay.
        maximize: ascend.

    Source: You, Gitman and Ginsburg 2017, arXiv 1708.03888, algorithm 1.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        trust_coefficient: float = 0.001,
        eps: float = 0.0,
        exclude_1d: bool = False,
        maximize: bool = False,
    ):
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1) (got {momentum})")
        if not trust_coefficient > 0:
            raise ValueError(f"trust_coefficient must be > 0 (got {trust_coefficient})")
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eps": eps}
        defaults |= {"trust_coefficient": trust_coefficient, "exclude_1d": exclude_1d, "maximize": maximize}
        super().__init__(params, defaults)

    def _update(self, group: Group, params: Tensors, grads: Tensors, states: list[State], adapt: bool) -> Tensor:
        decay, momentum = group["weight_decay"], group["momentum"]
        ratios = grads[0].new_ones(len(params))
        if adapt:
            w, g = (torch.stack(torch._foreach_norm(tensors)) for tensors in (params, grads))
            ratios = group["trust_coefficient"] * w / (g + decay * w + group["eps"])
            ratios = torch.where((w > 0) & torch.isfinite(ratios), ratios, 1)
        direction = torch._foreach_add(grads, params, alpha=decay) if decay else grads
        steps = list(torch._foreach_mul(direction, ratios.tolist()))
        if momentum:
            for state, step in zip(states, steps, strict=True):
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(step)
            buffers = [s["momentum_buffer"] for s in states]
            torch._foreach_mul_(buffers, momentum)
            torch._foreach_add_(buffers, steps)
            steps = buffers
        torch._foreach_add_(params, steps, alpha=-group["lr"])
        return ratios
