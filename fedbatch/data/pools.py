"""Pools that are not as clean as benchmarks: full of near-duplicates, or with rare classes. The test split stays."""

from dataclasses import replace

import numpy as np

from fedbatch.core import random as keys
from fedbatch.data.dataset import Dataset

SEED = 2021


def redundant(base: Dataset, originals: int, examples: int, noise: float) -> Dataset:
    """Noisy copies of few originals, whose numbers fall as one over their rank (Zipf), as in what is crawled.

    Args:
        base: its inputs are real numbers.
        originals: training examples that are copied, drawn without replacement.
        examples: size of the pool.
        noise: standard deviation that each copy is off by, in the unit of the inputs.
    """
    _check_one_array("redundant", base)
    if not 1 <= originals <= len(base.train_y):
        raise ValueError(f"originals must be in 1 .. {len(base.train_y)}, the training examples (got {originals})")
    if examples < 1 or not noise >= 0:
        raise ValueError(f"examples must be at least 1 and noise at least 0 (got {examples} and {noise})")
    draw = keys.generator(SEED, "redundant", originals, examples)
    kept = draw.choice(len(base.train_y), size=originals, replace=False)
    shares = 1 / np.arange(1, originals + 1)
    copied = kept[draw.choice(originals, size=examples, p=shares / shares.sum())]
    x = base.train_x[copied] + noise * draw.standard_normal((examples, *base.input_shape))
    return _with_training(base, "redundant", x.astype(np.float32), copied)


def long_tail(base: Dataset, ratio: float) -> Dataset:
    """Classes from frequent to rare: their sizes fall geometrically, the last has ``1 / ratio`` of the first's."""
    _check_one_array("long_tail", base)
    if not ratio >= 1:
        raise ValueError(f"ratio must be at least 1 (got {ratio})")
    if base.num_classes is None:
        raise ValueError(f"long_tail makes classes rare, and {base.name} has none; use another data set")
    order = keys.generator(SEED, "long tail").permutation(len(base.train_y))
    largest = np.bincount(base.train_y).min()
    kept = []
    for label in range(base.num_classes):
        members = order[base.train_y[order] == label]
        kept.append(members[: max(1, round(largest * ratio ** (-label / max(1, base.num_classes - 1))))])
    positions = np.sort(np.concatenate(kept))
    return _with_training(base, "long_tail", base.train_x[positions], positions)


def _check_one_array(name: str, base: Dataset) -> None:
    if not isinstance(base.train_x, np.ndarray):
        raise ValueError(f"{name} takes examples that are one array each, and {base.name} has other ones")


def _with_training(base: Dataset, name: str, x: np.ndarray, positions: keys.Ints) -> Dataset:
    return replace(base, name=f"{name}_{base.name}", train_x=x, train_y=base.train_y[positions], owner=None)
