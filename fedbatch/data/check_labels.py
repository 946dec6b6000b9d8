"""Labels of a data set of anybody's making: classes from 0, one an example or one a position."""

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbatch.data.rows import failing, listed

log = logging.getLogger("fedbatch")

Array = npt.NDArray[Any]

NO_LABEL = -100


def labels(name: str, y: Array, num_classes: int, x: Array) -> npt.NDArray[np.int64]:
    """The labels as int64, a column ``(examples, 1)`` as ``(examples,)`` unless ``x`` holds sequences of one token.

    Raises:
        ValueError: labels that are no classes of ``0 .. num_classes - 1``, and how to make them so.
    """
    if y.dtype.kind in "US":
        raise ValueError(f"dataset: {name} holds text; take np.unique({name}, return_inverse=True)[1]")
    if y.ndim == 2 and y.shape[1] == 1 and not (x.dtype == np.int64 and x.shape[1:] == (1,)):
        y = y[:, 0]
    if y.ndim > 2:
        told = f"{name} has shape {y.shape}"
        raise ValueError(
            f"dataset: {told}; labels are (examples,), or (examples, positions) with one output a position; for a "
            "class a pixel set task=segmentation"
        )
    if y.dtype.kind == "f":
        broken = failing(y, lambda block: np.isfinite(block) & (block == np.floor(block)))
        if broken.any():
            remedy = "labels are classes; for numbers to predict set task=regression"
            raise ValueError(f"dataset: {name} is no whole number in {listed(broken)}; {remedy}")
    if y.ndim == 2 and y.shape[1] == num_classes and ((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all():
        raise ValueError(
            f"dataset: {name} is one-hot, {y.shape}; take {name}.argmax(axis=1), or set task=multi_label if an example "
            "may have several"
        )
    low, high = (float(edge(y)) for edge in (np.min, np.max))
    outside = failing(y, lambda block: ((block >= 0) & (block < num_classes)) | ((block == NO_LABEL) & (y.ndim == 2)))
    if outside.any():
        told = f"{name} runs from {low:.0f} to {high:.0f} in {listed(outside)}"
        raise ValueError(
            f"dataset: {told}, outside 0 .. num_classes - 1 = {num_classes - 1}; {_remedy(y, num_classes)}"
        )
    if y.ndim == 2 and (silent := np.asarray((y == NO_LABEL).all(axis=1))).any():
        raise ValueError(f"dataset: {name} has no label at any position in {listed(silent)}; drop them")
    return np.ascontiguousarray(y, np.int64)


def tell_unseen_classes(train: npt.NDArray[np.int64], test: npt.NDArray[np.int64]) -> None:
    """Say which test examples cannot be learnt, and refuse where that is all of them; and where nothing is to learn."""
    if train.ndim == 1 and (train == train[0]).all():  # of a node's own data it may be so
        log.warning("dataset: all of train_y is of one class (%d); there is nothing to tell apart", train[0])
    unseen = ~np.isin(test, train)
    if test.ndim > 1 or not unseen.any():
        return
    classes = np.unique(test[unseen])
    told = f"{listed(unseen)} of the test split are of classes that no training example has ({classes[:5].tolist()}"
    told += ", ...)" if len(classes) > 5 else ")"
    if unseen.all():
        raise ValueError(f"dataset: {told}; divide the data anew")
    log.warning("dataset: %s; they count as wrong", told)


def _remedy(y: Array, num_classes: int) -> str:
    values = np.unique(y)
    if values.tolist() == [-1, 1]:
        return "take (y + 1) // 2"
    if values[0] >= 1 and values[-1] == num_classes:
        return "take y - 1"
    if len(values) <= num_classes:
        return "number the classes from 0 without gaps, by np.unique of the labels of both splits"
    return f"raise num_classes to {len(values)} or more"
