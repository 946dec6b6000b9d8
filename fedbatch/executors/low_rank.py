"""A Linear layer of many clients as one shared weight less a product of few columns each: exact, and less to move.

After steps of SGD a client's weight is ``W - D`` with ``D = sum_i g_i x_i^T`` over the positions it has seen, so its
layer maps x to ``x W^T - (x X^T) G``: one product with the weight that all share, and two small ones. What is kept of
a client grows with its steps and not with the weight, which no step reads or writes. Lengths of the D follow from the
same small products, and their weighted sum over clients is one product.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

WORTH = 3.5
"""Multiplications that cost as much in a step as what a weight of a client's own needs for each of its numbers: to read
and write it, and a product for each client instead of one for all. Measured on CPUs."""
TRUSTED, CLIPPED = 1e-3, 1e-4
"""Largest share of a squared length that rounding may be; else it is taken from D itself. And for clipping."""


def pays(layer: nn.Linear, rows: int, steps: int) -> bool:
    """Whether factors are smaller than a weight for each client, and cheaper, over steps with ``rows`` positions each.

    On average a position meets ``rows (steps + 1) / 2`` others, at ``in + out`` multiplications each.
    """
    weight, position = layer.weight.numel(), layer.in_features + layer.out_features
    return rows * steps * position < weight and rows**2 * (steps + 1) / 2 * position < WORTH * weight


@dataclass
class Factors:
    """``D_k = G_k^T X_k`` for K clients, as far as steps were taken.

    Attributes:
        weight: W (out, in), which all start from.
        inputs: X (K, R, in), of which the first ``rank`` rows are there.
        gradients: G (K, R, out), gradients at the layer's output with all that scales them.
        squares: float64 (K,), squared lengths of the D.
        rank: rows that are there.
        change: ``x D^T`` (k, rows, out) of the last forward.
        apart: clients whose D is formed to be added up, as it was formed for its length.
    """

    weight: Tensor
    inputs: Tensor
    gradients: Tensor
    squares: Tensor
    rank: int = 0
    change: Tensor | None = None
    apart: list[int] = field(default_factory=list)

    @classmethod
    def with_room(cls, weight: Tensor, clients: int, room: int) -> "Factors":
        """Of no steps yet, with room for so many positions."""
        squares = torch.zeros(clients, dtype=torch.float64, device=weight.device)
        inputs, gradients = (weight.new_empty(clients, room, size) for size in (weight.shape[1], weight.shape[0]))
        return cls(weight, inputs, gradients, squares)

    def has_room(self, rows: int) -> bool:
        """Whether another step's positions fit."""
        return self.rank + rows <= self.inputs.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """``x (W - D)^T`` (k, rows, out) of the first clients, for x (k, rows, in)."""
        seen, gradients = (t[: len(x), : self.rank] for t in (self.inputs, self.gradients))
        change = (x @ seen.mT) @ gradients
        self.change = change.detach()
        return (x.flatten(0, 1) @ self.weight.mT).view_as(change) - change

    def shrink(self, clients: int, factor: float) -> None:
        """Multiply the D of the first clients by a factor."""
        self.gradients[:clients, : self.rank] *= factor
        self.squares[:clients] *= factor**2
        if self.change is not None:
            self.change = self.change * factor

    def append(self, x: Tensor, g: Tensor, scale: float) -> None:
        """Add ``scale * g^T x`` to the D of the first clients, from (k, rows, in) and (k, rows, out)."""
        count, rows = len(x), slice(self.rank, self.rank + x.shape[1])
        self.inputs[:count, rows] = x
        g = torch.mul(g, scale, out=self.gradients[:count, rows])
        self.inputs[count:, rows] = 0  # of those who are done
        self.gradients[count:, rows] = 0
        self.squares[:count] += ((x @ x.mT) * (g @ g.mT)).sum(dim=(1, 2))
        if self.change is not None:
            self.squares[:count] += 2 * (g * self.change).sum(dim=(1, 2))
        self.change, self.rank = None, rows.stop

    def each(self) -> Tensor:
        """The D (K, out, in)."""
        return self.gradients[:, : self.rank].mT @ self.inputs[:, : self.rank]

    def sq_norms(self, exact: bool = False) -> Tensor:
        """Squared lengths (K,) of the D.

        Args:
            exact: whether no length may be shorter than what `sum` adds up, rounding included, as clipping needs.
        """
        gradients, inputs = (t[:, : self.rank].norm(dim=2) for t in (self.gradients, self.inputs))
        rounding = 4 * torch.finfo(inputs.dtype).eps * (gradients * inputs).sum(dim=1).double().square()
        trusted = rounding <= (CLIPPED if exact else TRUSTED) * self.squares
        doubtful = ~(trusted & self.squares.isfinite())  # products may overflow where D does not
        clients = [k for k, doubt in enumerate(doubtful.tolist()) if doubt]
        for k in clients:
            self.squares[k] = self._one(k).square().sum(dtype=torch.float64)
        self.apart = clients if exact else []
        return self.squares

    def sum(self, weights: Tensor) -> Tensor:
        """Weighted sum (out, in) of the D, by weights (K,)."""
        together = weights.index_fill(0, torch.tensor(self.apart, device=weights.device), 0) if self.apart else weights
        scaled = self.gradients[:, : self.rank] * together[:, None, None]
        total = scaled.flatten(0, 1).mT @ self.inputs[:, : self.rank].flatten(0, 1)
        for k in self.apart:
            total += weights[k] * self._one(k)
        return total

    def _one(self, k: int) -> Tensor:
        return self.gradients[k, : self.rank].mT @ self.inputs[k, : self.rank]
