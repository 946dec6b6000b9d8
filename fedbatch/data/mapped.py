"""Inputs that stay in their file: only the rows that are asked for are read."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedbatch.core.errors import RunFailedError
from fedbatch.core.random import Ints
from fedbatch.core.transfer import to_device
from fedbatch.data.rows import spread_rows


class MappedRows:
    """Rows of a file by their positions, as a tensor (N, ...) is indexed; each access reads, converts and copies.

    Args:
        read: from a slice, or positions (n,), to values (n, ...) that are float32 or int64.
        shape: (N, ...), of all.
        dtype: that numbers are cast to; tokens stay int64.
        device: where rows are put.
        refuses: whether values that are not finite end the run. Under privacy they do not, for the mechanism gives
            their example no weight, and an end would tell of it.
    """

    _version = 0
    """The file does not change during a run; a tensor counts here how often it did."""

    def __init__(
        self,
        read: Callable[[Any], np.ndarray],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        refuses: bool = True,
    ):
        self.shape, self.device = shape, device
        self._read, self._dtype, self._refuses = read, dtype, refuses

    def __len__(self) -> int:
        return self.shape[0]

    def is_floating_point(self) -> bool:
        """Whether rows are numbers; else they are tokens."""
        return bool(self._read(slice(1)).dtype.kind == "f")

    def __getitem__(self, rows: slice | Tensor | Ints) -> Tensor:
        """The rows of a slice, or at positions (n,), as a tensor (n, ...) of their own.

        Raises:
            RunFailedError: a value that is not finite, or a negative token; names the row.
        """
        chosen = rows.cpu().numpy() if isinstance(rows, Tensor) else rows
        found = self._read(chosen)
        if self._refuses:
            self._check(found, chosen)
        tensor = to_device(found, self.device)
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor

    def _check(self, found: np.ndarray, chosen: slice | Ints) -> None:
        good = np.isfinite(found) if found.dtype.kind == "f" else found >= 0
        if good.all():
            return
        places = np.arange(len(self))[chosen] if isinstance(chosen, slice) else chosen
        first = int(places[np.flatnonzero(~good.reshape(len(good), -1).all(axis=1))[0]])
        raise RunFailedError(f"dataset: train_x holds a value that is not finite, or a negative token, in row {first}")


Inputs = Tensor | MappedRows


def compared(x: Inputs) -> list[np.ndarray]:
    """Arrays that tell inputs from others: all of them, or of a file its shape and rows spread evenly over it."""
    if isinstance(x, Tensor):
        return [x.cpu().numpy()]
    return [np.array(x.shape), x[spread_rows(x.shape)].cpu().numpy()]


def of_draw(x: Inputs, y: Tensor, positions: Ints) -> tuple[Tensor, Tensor, Ints]:
    """Inputs, labels and positions (...) in them for work on ``positions`` (...): of a file, copies of those rows."""
    if isinstance(x, Tensor):
        return x, y, positions
    rows, places = np.unique(positions, return_inverse=True)  # ascending, as a disk likes it
    return x[rows], y[to_device(rows, y.device)], places.reshape(positions.shape)
