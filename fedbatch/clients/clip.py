"""Clipping: the longest update that one privacy unit, a client or an example, may contribute."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Clip:
    """Scale updates down to length ``norm`` (Abadi et al. 2016, alg. 1; McMahan et al. 2018).

    Attributes:
        norm: C > 0, the largest L2 length of a contribution; ``math.inf`` clips nothing.
        per_layer: clip each of the L layers with parameters to ``C / sqrt(L)`` on its own, so that the whole stays
            within C; else the whole at once.

    >>> factors, squares = Clip(2.0)(torch.tensor([[9.0, 1.0], [7.0, 3.0]]))    # two layers, two updates
    >>> factors[0].tolist(), squares.tolist()                                   # lengths 4 and 2
    ([0.5, 1.0], [4.0, 4.0])
    """

    norm: float
    per_layer: bool = False

    def __call__(self, sq_norms: Tensor) -> tuple[Tensor, Tensor]:
        """Factors and lengths of updates.

        Args:
            sq_norms: (L, n) squared norm of each layer of each update.

        Returns:
            The factor (L, n) of each layer, and the squared norm (n,) of each clipped update. What is not finite stays
            so, for the caller to leave out.
        """
        layers = len(sq_norms)
        groups = sq_norms if self.per_layer else sq_norms.sum(dim=0, keepdim=True)
        limit = self.norm / math.sqrt(len(groups))
        # A non-finite length has no factor: without this, inf would be scaled by 0 and pass for a clean update.
        groups = torch.where(groups.isfinite(), groups.clamp(min=0), torch.nan)
        factors = torch.where(groups > limit**2, limit * groups.rsqrt(), torch.ones_like(groups))
        factors = torch.where(groups.isnan(), torch.nan, factors)
        return factors.expand(layers, -1), groups.clamp(max=limit**2).sum(dim=0)
