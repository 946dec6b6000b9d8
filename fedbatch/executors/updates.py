"""Updates of clients side by side: their lengths, how they are clipped, and their weighted sum."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fedbatch.clients.clip import Clip
from fedbatch.clients.parts import BLOCK, inner_products
from fedbatch.models.flat import FlatModel


class Differences(Protocol):
    """Of one parameter, start minus end of K clients."""

    def sq_norms(self, exact: bool = False) -> Tensor:
        """Squared lengths (K,) in float64; if ``exact``, none is shorter than what is added up."""
        ...

    def sum(self, weights: Tensor) -> Tensor:
        """Weighted sum (*shape), by weights (K,)."""
        ...

    def each(self) -> Tensor:
        """The differences (K, *shape)."""
        ...


@dataclass
class Stack:
    """Differences (K, *shape) as they are."""

    values: Tensor

    def sq_norms(self, exact: bool = False) -> Tensor:
        """Squared lengths (K,), in float64 where they are added up over blocks."""
        blocks = self.values.reshape(len(self.values), -1).split(BLOCK, dim=1)
        return torch.stack([block.square().sum(dim=1) for block in blocks]).sum(dim=0, dtype=torch.float64)

    def sum(self, weights: Tensor) -> Tensor:
        """Weighted sum (*shape)."""
        return torch.tensordot(weights, self.values, dims=1)

    def each(self) -> Tensor:
        """The differences as they are."""
        return self.values


@dataclass
class FlatUpdates:
    """Updates as flat vectors, whole or in parts.

    Attributes:
        parts: (K, S, d), which add up to a client's update.
        layer_sizes: numbers of parameters of the layers, as `FlatModel` has them.
    """

    parts: Tensor
    layer_sizes: list[int]

    def products(self) -> Tensor:
        """Inner products (K, S, S) between the parts of each client."""
        return inner_products(self.parts)

    def clipped(self, clip: Clip) -> Tensor:
        """Clip the updates in place; their squared lengths (K, 1, 1)."""
        whole = self.whole()
        layers = whole.split(self.layer_sizes, dim=1)
        factors, squares = clip(torch.stack([layer.square().sum(dim=1) for layer in layers]))
        for layer, factor in zip(layers, factors, strict=True):
            layer *= factor[:, None]
        self.parts = whole[:, None]
        return squares[:, None, None]

    def sum(self, weights: Tensor) -> Tensor:
        """Weighted sum (d,) of the updates, by weights (K,)."""
        return weights @ self.whole()

    def whole(self) -> Tensor:
        """The updates (K, d)."""
        return self.parts.sum(dim=1) if self.parts.shape[1] > 1 else self.parts[:, 0]  # a view where that is enough


@dataclass
class ParameterUpdates:
    """Updates parameter by parameter.

    Attributes:
        model: gives the order of the flat vector.
        differences: of each trainable parameter, in their order.
        factors: (K,) of each parameter once updates are clipped.
    """

    model: FlatModel
    differences: Sequence[Differences]
    factors: Sequence[Tensor] = ()

    def products(self) -> Tensor:
        """Squared lengths (K, 1, 1) in float64."""
        return torch.stack([d.sq_norms() for d in self.differences]).sum(dim=0)[:, None, None]

    def clipped(self, clip: Clip) -> Tensor:
        """Clip the updates when they are added up; their squared lengths (K, 1, 1) then."""
        squares = torch.stack([d.sq_norms(exact=True) for d in self.differences])
        layer = torch.tensor(self.model.layer_of_parameter, device=squares.device)
        factors, lengths = clip(
            squares.new_zeros(len(self.model.layer_sizes), squares.shape[1]).index_add_(0, layer, squares)
        )
        self.factors = list(factors[layer])
        return lengths[:, None, None]

    def sum(self, weights: Tensor) -> Tensor:
        """Weighted sum (d,), by weights (K,)."""
        scaled = [weights * factor.to(weights) for factor in self.factors] or [weights] * len(self.differences)
        return self.model.join([d.sum(w) for d, w in zip(self.differences, scaled, strict=True)])

    def whole(self) -> Tensor:
        """The updates (K, d), not clipped."""
        return self.model.join([d.each() for d in self.differences])
