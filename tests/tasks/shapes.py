"""Small images with bright squares: the pixels of a square are of class 1 or 2, by its brightness, others of 0."""

import numpy as np
from torch import nn

from fedbatch.data.dataset import Dataset


def shapes(examples=200, size=8, unlabelled=0.0, ignored=-100):
    rng = np.random.default_rng(0)
    x = 0.2 * rng.normal(size=(examples, 1, size, size)).astype(np.float32)
    y = np.zeros((examples, size, size), np.int64)
    for i in range(examples):
        (top, left), bright = rng.integers(0, size - 3, 2), rng.integers(1, 3)
        x[i, 0, top : top + 3, left : left + 3] += bright
        y[i, top : top + 3, left : left + 3] = bright
    y[rng.random(y.shape) < unlabelled] = ignored
    cut = examples * 4 // 5
    return Dataset("shapes", x[:cut], y[:cut], x[cut:], y[cut:], 3)


def model(num_classes):
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, num_classes, 1))
