"""Two small data sets that scikit-learn carries, for tests and first steps."""

import numpy as np
import numpy.typing as npt

from fedbatch.core import random as keys
from fedbatch.data.dataset import Dataset

SPLIT_SEED = 2017
TEST_FRACTION = 0.2


def digits() -> Dataset:
    """1,797 handwritten digits of 8 x 8 pixels, ``(N, 1, 8, 8)``, with one mean and std for all."""
    from sklearn.datasets import load_digits  # a second to import

    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 1, 8, 8)  # grey levels are 0 .. 16
    return _split("digits", x, y, axes=None)


def breast_cancer() -> Dataset:
    """569 tumours, malignant (0) or benign (1), by 30 measurements, each with its own mean and std."""
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    return _split("breast_cancer", x, y, axes=0)


def held_out(labels: npt.NDArray[np.int64], fraction: float) -> npt.NDArray[np.bool_]:
    """Which examples are the test split: the same fraction of every class, always the same examples.

    >>> held_out(np.array([0, 0, 0, 0, 1, 1]), 0.5).sum()
    np.int64(3)
    """
    order = keys.generator(SPLIT_SEED, "held-out").permutation(len(labels))
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        mask[members[: round(fraction * len(members))]] = True
    return mask


def _split(name: str, x: npt.NDArray[np.float64], y: npt.NDArray[np.int64], axes: int | None) -> Dataset:
    test = held_out(y, TEST_FRACTION)
    scaled = ((x - x[~test].mean(axes)) / x[~test].std(axes)).astype(np.float32)
    labels = y.astype(np.int64)
    return Dataset(name, scaled[~test], labels[~test], scaled[test], labels[test], int(y.max()) + 1)
