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

    def sq_norms(self) -> Tensor:
        """Squared lengths (K,) in float64."""
        ...

    def sum(self, weights: Tensor) -> Tensor:
        """Weighted sum (*shape), by weights (K,)."""
        ...

    def each(self) -> Tensor:
        """The differences themselves (K, *shape)."""
        ...


@dataclass
class Stack:
    """Differences (K, *shape) as they are."""

    values: Tensor

    def sq_norms(self) -> Tensor:
        """Squared lengths (K,), in float64 where they are added up over blocks."""
        blocks = self.values.reshape(len(self.values), -1).split(BLOCK, dim=1)
        return torch.stack([torch.linalg.vector_norm(block, dim=1) for block in blocks]).double().square_().sum(dim=0)

    def sum(self, weights: Tensor) -> Tensor:
        """Weighted sum (*shape)."""
        return torch.tensordot(weights, self.values, dims=1)

    def each(self) -> Tensor:
        """The differences."""
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
        whole = self._whole()
        layers = whole.split(self.layer_sizes, dim=1)
        factors, squares = clip(torch.stack([layer.square().sum(dim=1) for layer in layers]))
        for layer, factor in zip(layers, factors, strict=True):
            layer *= factor[:, None]
        self.parts = whole[:, None]
        return squares[:, None, None]

    def sum(self, weights: Tensor) -> Tensor:
        """Weighted sum (d,) of the updates, by weights (K,)."""
        return weights @ self._whole()

    def flat(self) -> "FlatUpdates":
        """Themselves."""
        return self

    def _whole(self) -> Tensor:
        return self.parts.sum(dim=1) if self.parts.shape[1] > 1 else self.parts[:, 0]  # a view where that is enough


@dataclass
class ParameterUpdates:
    """Updates parameter by parameter.

    Attributes:
        model: gives the order of the flat vector.
        differences: of each trainable parameter, in their order.
    """

    model: FlatModel
    differences: Sequence[Differences]

    def products(self) -> Tensor:
        """Squared lengths (K, 1, 1) in float64."""
        return torch.stack([d.sq_norms() for d in self.differences]).sum(dim=0)[:, None, None]

    def sum(self, weights: Tensor) -> Tensor:
        """Weighted sum (d,), by weights (K,)."""
        return self.model.join([d.sum(weights) for d in self.differences])

    def flat(self) -> FlatUpdates:
        """The same as flat vectors, which can be clipped: what is added up is then what was measured."""
        return FlatUpdates(self.model.join([d.each() for d in self.differences])[:, None], self.model.layer_sizes)
