"""PowerSGD: each matrix as a product of two thin ones, by one power iteration (Vogels et al. 2019)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fedbatch.compression.stage import Field, Side, generator

Split = Callable[[Tensor], Sequence[Tensor]]
Join = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class PowerSGD:
    """Send P (m, r) and Q (c, r) for each matrix M (m, c), with P an orthonormal basis of M S, Q = M^T P and S drawn.

    A convolution is a matrix with a row for each filter. What is not smaller so, such as biases, is sent as it is.
    A matrix of rank r or less arrives as it was. It is biased, and needs the model: it is the first stage.

    Attributes:
        rank: r >= 1.
        split, join: between the flat vector and the model's tensors; set by `on_model`.
        shapes: of these.
    """

    rank: int = 2
    split: Split | None = field(default=None, init=False, repr=False)
    join: Join | None = field(default=None, init=False, repr=False)
    shapes: tuple[tuple[int, ...], ...] = field(default=(), init=False)
    is_unbiased = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"compression: rank of PowerSGD must be at least 1 (got {self.rank})")

    def on_model(self, model: Any) -> "PowerSGD":
        """The same for the tensors of a `FlatModel`."""
        made = replace(self)
        shapes = tuple(tuple(p.shape) for p in model.trainable)
        for name, value in (("split", model.split), ("join", model.join), ("shapes", shapes)):
            object.__setattr__(made, name, value)
        return made

    def encode(self, vector: Tensor, key: int) -> tuple[Tensor, Side]:
        """P and Q of each matrix and all other tensors, one after the other."""
        assert self.split is not None
        parts, draws = [], generator(key)
        for tensor in self.split(vector):
            if not self._is_low_rank(tuple(tensor.shape)):
                parts.append(tensor.flatten())
                continue
            matrix = tensor.flatten(1)
            start = torch.from_numpy(draws.standard_normal((matrix.shape[1], self.rank))).to(matrix)
            left = torch.linalg.qr(matrix @ start).Q
            parts += [left.flatten(), (matrix.mT @ left).flatten()]
        return torch.cat(parts), {}

    def decode(self, vector: Tensor, side: Side, n: int, key: int) -> Tensor:
        """P Q^T of each matrix, and the other tensors."""
        assert self.join is not None
        rest, tensors = vector, []
        for shape in self.shapes:
            if self._is_low_rank(shape):
                rows, columns = shape[0], math.prod(shape[1:])
                left, right, rest = rest.split([rows * self.rank, columns * self.rank, self._after(rest, shape)])
                tensors.append((left.view(rows, -1) @ right.view(columns, -1).mT).view(shape))
            else:
                own, rest = rest.split([math.prod(shape), self._after(rest, shape)])
                tensors.append(own.view(shape))
        return self.join(tensors)

    def length(self, n: int) -> int:
        """Numbers of all factors and of all other tensors."""
        return sum(map(self._numbers, self.shapes))

    def fields(self, n: int) -> dict[str, Field]:
        """Nothing is sent besides."""
        return {}

    def worst_error(self, n: int) -> float:
        """A projection onto r random directions of the largest matrix, r of c on average."""
        widths = [math.prod(s[1:]) for s in self.shapes if self._is_low_rank(s)]
        return 1 - self.rank / max(widths) if widths else 0.0

    def _is_low_rank(self, shape: tuple[int, ...]) -> bool:
        rows, columns = (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, 0)
        return self.rank * (rows + columns) < rows * columns

    def _numbers(self, shape: tuple[int, ...]) -> int:
        thin = self.rank * (shape[0] + math.prod(shape[1:])) if self._is_low_rank(shape) else 0
        return thin or math.prod(shape)

    def _after(self, rest: Tensor, shape: tuple[int, ...]) -> int:
        return len(rest) - self._numbers(shape)
