"""What labels may be, without torch: each rule checks labels of one kind and gives them in one type and shape."""

import logging
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fedbatch.data import check_labels
from fedbatch.data.rows import failing, listed

log = logging.getLogger("fedbatch")
Array = npt.NDArray[Any]


class LabelRule(Protocol):
    """A kind of labels."""

    @property
    def kind(self) -> str:
        """How a column of a table is read: as "classes" or as "numbers"."""
        ...

    @property
    def has_classes(self) -> bool:
        """Whether a label is one class, by which temperatures and queries can go."""
        ...

    @property
    def has_positions(self) -> bool:
        """Whether there may be a label for each position of a sequence."""
        ...

    def num_classes(self, declared: Any) -> int | None:
        """The number of classes that a data set declares, checked; None where there are none."""
        ...

    def labels(self, name: str, y: Array, num_classes: int | None, x: Array) -> Array:
        """The labels of one split.

        Raises:
            ValueError: what is wrong, in which rows, and what to do.
        """
        ...

    def compare(self, train: Array, test: Array) -> None:
        """Say, or refuse, what cannot be learnt of the test split."""
        ...


@dataclass(frozen=True)
class Classes:
    """Whole numbers from 0, one an example, or one a position with -100 where there is none."""

    kind: str = "classes"
    has_classes: bool = True
    has_positions: bool = True

    def num_classes(self, declared: Any) -> int | None:
        """At least 2."""
        return declared_classes(declared)

    def labels(self, name: str, y: Array, num_classes: int | None, x: Array) -> Array:
        """Int64 (N,) or (N, T)."""
        assert num_classes is not None
        return check_labels.labels(name, y, num_classes, x)

    def compare(self, train: Array, test: Array) -> None:
        """Classes that no training example has are told."""
        check_labels.tell_unseen_classes(train, test)


@dataclass(frozen=True)
class Numbers:
    """Real numbers, one or several an example."""

    kind: str = "numbers"
    has_classes: bool = False
    has_positions: bool = False

    def num_classes(self, declared: Any) -> int | None:
        """There are none, whatever is declared."""
        return None

    def labels(self, name: str, y: Array, num_classes: int | None, x: Array) -> Array:
        """Float64 (N, k), with (N,) as (N, 1)."""
        return _finite(name, y)

    def compare(self, train: Array, test: Array) -> None:
        """Labels that are all the same teach nothing."""
        if (train == train[:1]).all():  # of a node's own data it may be so
            log.warning("dataset: all of train_y is %s; there is nothing to learn", train[0].tolist())


@dataclass(frozen=True)
class ManyLabels:
    """0 or 1 for each of several labels of an example."""

    kind: str = "numbers"
    has_classes: bool = False
    has_positions: bool = False

    def num_classes(self, declared: Any) -> int | None:
        """There are none: the columns of the labels say how many there are."""
        return None

    def labels(self, name: str, y: Array, num_classes: int | None, x: Array) -> Array:
        """Float64 (N, C) of 0 and 1."""
        found = _finite(name, y)
        broken = failing(found, lambda block: (block == 0) | (block == 1))
        if broken.any():
            raise ValueError(f"dataset: {name} is neither 0 nor 1 in {listed(broken)}; task=multi_label takes 0 and 1")
        return found

    def compare(self, train: Array, test: Array) -> None:
        """At least one label must tell examples apart."""
        Numbers().compare(train, test)


@dataclass(frozen=True)
class Pixels:
    """A class for each pixel of an image, or ``ignore_index`` where it has none."""

    ignore_index: int = check_labels.NO_LABEL
    kind: str = "classes"
    has_classes: bool = False
    has_positions: bool = False

    def num_classes(self, declared: Any) -> int | None:
        """At least 2."""
        return declared_classes(declared)

    def labels(self, name: str, y: Array, num_classes: int | None, x: Array) -> Array:
        """Int64 (N, H, W), with -100 where a pixel has no class."""
        assert num_classes is not None
        if y.ndim == 4 and y.shape[1] == 1:
            y = y[:, 0]
        if y.ndim != 3:
            raise ValueError(f"dataset: {name} has shape {y.shape}; labels of pixels are (examples, height, width)")
        if y.dtype.kind not in "biuf":
            raise ValueError(f"dataset: {name} holds {y.dtype}; labels of pixels are whole numbers")
        ignored = y == self.ignore_index
        whole = failing(y, lambda block: np.isfinite(block) & (block == np.floor(block)))
        if whole.any():
            raise ValueError(f"dataset: {name} is no whole number in {listed(whole)}; labels of pixels are classes")
        good = ignored | ((y >= 0) & (y < num_classes))
        outside = np.asarray(~good.reshape(len(y), -1).all(axis=1))
        if outside.any():
            raise ValueError(
                f"dataset: {name} runs from {y.min():.0f} to {y.max():.0f} in {listed(outside)}, outside 0 .. "
                f"num_classes - 1 = {num_classes - 1}; raise num_classes, or set task.ignore_index (is "
                f"{self.ignore_index})"
            )
        silent = np.asarray(ignored.reshape(len(y), -1).all(axis=1))
        if silent.any():
            raise ValueError(f"dataset: {name} has no label at any pixel in {listed(silent)}; drop them")
        return np.where(ignored, check_labels.NO_LABEL, y).astype(np.int64)

    def compare(self, train: Array, test: Array) -> None:
        """Nothing is asked: a class may be in few images."""


CLASSES, NUMBERS, MANY_LABELS = Classes(), Numbers(), ManyLabels()


def declared_classes(value: Any) -> int:
    """The number of classes that a data set declares.

    Raises:
        ValueError: no whole number of at least 2.
    """
    if value is None:
        raise ValueError("dataset: num_classes is missing; give it, or set task=regression for numbers to predict")
    whole = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not whole or value != int(value) or value < 2:
        remedy = "; for numbers to predict leave it out and set task=regression" if value in (0, 1) else ""
        raise ValueError(f"dataset: num_classes must be a whole number of at least 2 (got {value!r}){remedy}")
    return int(value)


def _finite(name: str, y: Array) -> npt.NDArray[np.float64]:
    if y.dtype.kind in "US":
        raise ValueError(f"dataset: {name} holds text; numbers are predicted, or set task=auto for classes")
    if y.ndim > 2:
        raise ValueError(f"dataset: {name} has shape {y.shape}; labels are (examples,) or (examples, outputs)")
    values = y[:, None] if y.ndim == 1 else y
    broken = failing(values, np.isfinite) if values.dtype.kind == "f" else np.zeros(len(values), bool)
    if broken.any():
        raise ValueError(f"dataset: {name} is not a finite number in {listed(broken)}; fill or drop them")
    return np.ascontiguousarray(values, np.float64)
