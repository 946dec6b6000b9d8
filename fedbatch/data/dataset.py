"""What a data set is to the rest of fedbatch: four arrays and a few facts about them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbatch.core.layout import Layout


@dataclass(frozen=True)
class Dataset:
    """A data set with a held-out test split that stays on the server.

    One label an example, or one a position where an example is a sequence; other tasks have other labels, see
    docs/tasks.md. What a target returns is checked, and converted to these types where that is safe: see docs/own.md.

    Attributes:
        name: short name for records and messages.
        train_x: ``(examples, *input_shape)``: float32, already scaled, or int64 tokens in ``0 .. num_classes - 1``.
        train_y: int64 ``(examples,)``, labels in ``0 .. num_classes - 1``, or ``(examples, positions)`` with -100 where
            there is nothing to tell. Numbers to predict are float64 ``(examples, numbers)``.
        test_x: ``(test_examples, *input_shape)``.
        test_y: likewise.
        num_classes: number of labels, or of tokens; None where labels are no classes.
        owner: int64 ``(examples,)``, the natural client of each training example, or None.
        pad: what is put behind the end of sequences of several lengths.
        layout: what lies where in a row, of inputs that are several arrays; None where an example is one array. A
            target gives such inputs as a mapping, a tuple or a list of sequences, see docs/inputs.md, and never this.
        mapped: whether ``train_x`` stays where it is, in a file: rows of float32, int64 or uint8 are read when they are
            drawn, and never all of them; see docs/data.md.
        scale: what such rows of uint8 are multiplied by.
        meaning: what the numbers of a column stand for, by its name; see `fedbatch.data.meaning`.
    """

    name: str
    train_x: npt.NDArray[np.float32] | npt.NDArray[np.int64]
    train_y: npt.NDArray[np.int64] | npt.NDArray[np.float64]
    test_x: npt.NDArray[np.float32] | npt.NDArray[np.int64]
    test_y: npt.NDArray[np.int64] | npt.NDArray[np.float64]
    num_classes: int | None = None
    owner: npt.NDArray[np.int64] | None = None
    pad: float = 0
    layout: Layout | None = None
    mapped: bool = False
    scale: float | None = None
    meaning: Mapping[str, str] = field(default_factory=dict)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example, e.g. ``(1, 28, 28)``; of several arrays, of the row that holds them."""
        return tuple(self.train_x.shape[1:])

    def read(self, rows: Any) -> npt.NDArray[Any]:
        """A copy of the training inputs (n, ...) of a slice, or at positions (n,), as a model gets them."""
        found = np.array(self.train_x[rows])
        return found if self.scale is None else scaled(found, self.scale)


def scaled(x: npt.NDArray[Any], scale: float) -> npt.NDArray[np.float32]:
    """Float32 ``x * scale``, in the same arithmetic for one row as for all."""
    return np.multiply(x, np.float32(scale), dtype=np.float32)
