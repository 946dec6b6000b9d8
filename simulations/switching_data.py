"""Data and a model of the study of switching, where fedbatch has none."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from torch import nn

from fedbatch.data import fashion_mnist
from fedbatch.data.dataset import Dataset

CLASSES, SEED = 10, 2018


@lru_cache(maxsize=1)
def fashion(label_noise: float = 0.0, pool: int = 1) -> Dataset:
    """All of Fashion-MNIST: 60,000 images to train on, 10,000 to test with.

    Args:
        label_noise: share of the training labels, in [0, 1], that are drawn anew from all classes.
        pool: side of the squares of pixels that become one pixel, by their mean; it divides 28.
    """
    whole, rng = fashion_mnist(), np.random.default_rng(SEED)
    x, test_x = (_pooled(images, pool) for images in (whole.train_x, whole.test_x))
    drawn = rng.random(len(x)) < label_noise
    y = np.where(drawn, rng.integers(CLASSES, size=len(x)), whole.train_y)
    return Dataset("fashion", x, y, test_x, whole.test_y, CLASSES)


def _pooled(images: np.ndarray, pool: int) -> np.ndarray:
    return images.reshape(-1, 1, 28 // pool, pool, 28 // pool, pool).mean(axis=(3, 5))


def vgg6(input_shape: Sequence[int], num_classes: int, width: int = 8) -> nn.Module:
    """Four 3x3 convolutions in two stages and two dense layers, without normalisation (Simonyan and Zisserman 2015)."""
    layers: list[nn.Module] = []
    channels, side = input_shape[0], input_shape[1]
    for stage in range(2):
        for _ in range(2):
            layers += [nn.Conv2d(channels, width * 2**stage, 3, padding=1), nn.ReLU()]
            channels = width * 2**stage
        layers += [nn.MaxPool2d(2)]
        side //= 2
    head = nn.Flatten(), nn.Linear(channels * side * side, 8 * width), nn.ReLU(), nn.Linear(8 * width, num_classes)
    return nn.Sequential(*layers, *head)
