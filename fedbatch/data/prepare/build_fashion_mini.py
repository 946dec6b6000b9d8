"""Chooses the Fashion-MNIST subset that the package carries, from the four published files.

Run as ``python -m fedbatch.data.prepare.build_fashion_mini FOLDER``; the same files give the same bytes.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedbatch.core import random as keys
from fedbatch.data.fashion import MINI, NUM_CLASSES, read_folder

SEED = 2017
TRAIN_PER_CLASS, TEST_PER_CLASS = 1000, 200


def choose(labels: npt.NDArray[np.uint8], per_class: int, purpose: str) -> npt.NDArray[np.int64]:
    """Positions of ``per_class`` examples of each class, in the order of the published file."""
    order = keys.generator(SEED, purpose).permutation(len(labels))
    return np.sort(np.concatenate([order[labels[order] == c][:per_class] for c in range(NUM_CLASSES)]))


def main(folder: str) -> None:
    """Write ``fashion_mini.npz`` beside this module and print its SHA-256."""
    train_x, train_y, test_x, test_y = read_folder(Path(folder))
    train = choose(train_y, TRAIN_PER_CLASS, "fashion_mini/train")
    test = choose(test_y, TEST_PER_CLASS, "fashion_mini/test")
    np.savez_compressed(MINI, train_x=train_x[train], train_y=train_y[train], test_x=test_x[test], test_y=test_y[test])
    print(f"{MINI.name}: {MINI.stat().st_size} bytes, SHA-256 {hashlib.sha256(MINI.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m fedbatch.data.prepare.build_fashion_mini FOLDER, where the four published files are")
    main(sys.argv[1])
