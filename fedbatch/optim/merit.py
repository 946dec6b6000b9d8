"""MERIT: Adam's direction scaled element by element to the largest weights of its row, its column and its tensor."""

import math
from typing import Any

import torch
from torch import Tensor

from fedbatch.optim.layerwise import Group, Layerwise, State, Tensors, check_betas, moments, quotient


class MERIT(Layerwise):
    """Maximum-normalised element-wise ratios.

    For each tensor w with gradient g of the same shape::

        m = beta1 * m + (1 - beta1) * g            v = beta2 * v + (1 - beta2) * g^2       both 0 at first
        d = m / (sqrt(v) + eps) + weight_decay * w                                         no bias correction
        w = w - lr * clip(s * d, -1, 1)

    For a matrix (rows, columns), with maxima of absolute values, ``s_ij = max(row_i, column_j, ratio)`` where

        row_i = max_j |w_ij| / max_j |d_ij|     column_j = max_i |w_ij| / max_i |d_ij|     ratio = max |w| / max |d|

    and s_ij = 1 where any of the four maxima that row_i and column_j are made of is 0. For tensors of at most one axis,
    s = ratio, or 1 where a maximum is 0. So ``max |dw| <= lr * min(1, max |w|)``, but for the places where s = 1.

    For more than two axes, e.g. convolutions (out, in, height, width), the authors' code takes rows over axis 1 and
    columns over axis 0, for each position of the kernel apart. The paper speaks of matrices; ``flatten`` reads a
    convolution as the matrix (out, in * height * width), so that a row is a filter.

    Args:
        params: tensors, or groups of them, as for any torch optimizer.
        lr: >= 0.
        betas: decay rates of m and v, in [0, 1).
        eps: >= 0.
        weight_decay: >= 0, within the direction.
        flatten: see above; changes nothing for matrices.
        exclude_1d: step tensors of at most one axis with s = 1, without decay or clipping: the paper describes
            matrices only, while the authors' code scales, decays and clips vectors too.
        maximize: ascend.

    Source: Luo et al. 2025, arXiv 2508.20577, algorithm 1, and the authors' code where the two differ.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        flatten: bool = False,
        exclude_1d: bool = False,
        maximize: bool = False,
    ):
        check_betas(betas)
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults | {"flatten": flatten, "exclude_1d": exclude_1d, "maximize": maximize})

    def _update(self, group: Group, params: Tensors, grads: Tensors, states: list[State], adapt: bool) -> Tensor:
        means, squares = moments(group, grads, states)
        denominators = list(torch._foreach_sqrt(squares))
        torch._foreach_add_(denominators, group["eps"])
        directions = list(torch._foreach_div(means, denominators))
        if group["weight_decay"]:
            torch._foreach_add_(directions, params, alpha=group["weight_decay"])
        ratios = grads[0].new_ones(len(params))
        if adapt:
            pairs = zip(params, directions, strict=True)
            ratios = torch.stack([self._scale(w, d, group["flatten"]) for w, d in pairs])
            torch._foreach_clamp_min_(directions, -1)
            torch._foreach_clamp_max_(directions, 1)
        torch._foreach_add_(params, directions, alpha=-group["lr"])
        return ratios

    @staticmethod
    def _scale(w: Tensor, d: Tensor, flatten: bool) -> Tensor:
        """Multiply d by s in place; the tensor-wise ratio, a scalar."""
        if w.dim() < 2:
            ratio = quotient(w.abs().amax(), d.abs().amax())
            d.mul_(ratio)
            return ratio
        axes = tuple(range(1, w.dim())) if flatten else (1,)
        sizes = w.abs(), d.abs()
        rows, columns = ([t.amax(axis, keepdim=True) for t in sizes] for axis in (axes, (0,)))
        ratio = quotient(rows[0].amax(), rows[1].amax())
        # A maximum takes over NaN from either side, so that one pass at the end sets zero rows and columns to 1.
        row, column = (
            torch.where((above > 0) & (below > 0), above / below, math.nan) for above, below in (rows, columns)
        )
        s = torch.maximum(torch.maximum(row, ratio), column)
        d.mul_(s.nan_to_num_(nan=1.0, posinf=math.inf))
        return ratio
