"""Models of one's own, for runs: each is built from (input_shape, num_classes) and takes digits."""

import torch
import torch.nn.functional as F
from torch import nn


def cumulative_norm(input_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8, momentum=None), nn.Linear(8, num_classes))


def dropped(input_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, num_classes))


def noisy(input_shape, num_classes):
    class Noise(nn.Module):
        def forward(self, x):
            return x + torch.randn_like(x) if self.training else x

    return nn.Sequential(nn.Flatten(), Noise(), nn.Linear(64, num_classes))


class Masked(nn.Module):
    """Attention over the rows of a digit, each of which sees those before it, by a mask of -inf."""

    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.out = nn.Linear(8, num_classes)
        self.register_buffer("mask", torch.full((8, 8), float("-inf")).triu(1))

    def forward(self, x):
        rows = x[:, 0]
        weights = (self.q(rows) @ self.k(rows).mT + self.mask).softmax(-1)
        return self.out((weights @ self.v(rows)).mean(1))


class Late(nn.Module):
    """Starts to count in a buffer after some calls."""

    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.out, self.calls = nn.Linear(64, num_classes), 0
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        if self.calls > 30:
            self.count += 1
        return self.out(x.flatten(1))


ONE = []


def same_module(input_shape, num_classes):
    ONE[:] = ONE or [nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))]
    return ONE[0]


def in_float64(input_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes)).double()


def lazy(input_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(num_classes))


def stochastic_depth(input_shape, num_classes):
    import random

    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 64)

        def forward(self, x):
            return x + F.relu(self.layer(x)) if not self.training or random.random() < 0.5 else x

    return nn.Sequential(nn.Flatten(), Sometimes(), nn.Linear(64, num_classes))


class Temperature(nn.Module):
    """A loss that learns a number of its own."""

    def __init__(self, frozen=False):
        super().__init__()
        self.log_temperature = nn.Parameter(torch.zeros(1), requires_grad=not frozen)

    def forward(self, logits, labels):
        return nn.functional.cross_entropy(logits / self.log_temperature.exp(), labels)
