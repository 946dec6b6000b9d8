"""Logistic regression and multilayer perceptron on flattened inputs."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def logistic(input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """Multinomial logistic regression: one affine layer, started at zero (the loss is convex).

    >>> logistic((1, 28, 28), 10)[1].weight.shape
    torch.Size([10, 784])
    """
    layer = nn.Linear(math.prod(input_shape), num_classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.Flatten(), layer)


def mlp(input_shape: Sequence[int], num_classes: int, width: int, depth: int) -> nn.Module:
    """ReLU perceptron with ``depth`` hidden layers of ``width`` units, e.g. 784-64-10 at width 64, depth 1.

    >>> sum(p.numel() for p in mlp((1, 28, 28), 10, width=32, depth=1).parameters())
    25450
    """
    for name, value in (("width", width), ("depth", depth)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1 (got {value}); for no hidden layer use model=logistic")
    sizes = [math.prod(input_shape)] + [width] * depth
    hidden = [part for i, o in pairwise(sizes) for part in (nn.Linear(i, o), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, num_classes))
