"""A small convolutional network for images."""

from collections.abc import Sequence

import torch
from torch import nn

from fedbatch.models.norms import normalization


def cnn(input_shape: Sequence[int], num_classes: int, channels: int, hidden: int, norm: str, groups: int) -> nn.Module:
    """Two 3x3 convolutions, one 2x2 max-pool, one hidden layer.

    With 28x28 grey images, 32 channels, 128 hidden units and no norm it has 1,199,882 parameters.

    Args:
        input_shape: ``(image_channels, height, width)``, at least 6x6.
        num_classes: number of labels.
        channels: filters of the first convolution; the second has twice as many.
        hidden: units of the fully connected layer.
        norm: "none", "group" or "batch" after each convolution.
        groups: groups of a group norm; must divide ``channels``.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < 6:
        raise ValueError(f"cnn needs images of at least 6x6 (got input {tuple(input_shape)}); use model=mlp")
    if min(channels, hidden) < 1:
        raise ValueError(f"channels and hidden must be at least 1 (got {channels} and {hidden})")
    features = nn.Sequential(
        nn.Conv2d(input_shape[0], channels, 3),
        *normalization(norm, channels, groups),
        nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, 3),
        *normalization(norm, 2 * channels, groups),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    )
    with torch.no_grad():
        flat = features.eval()(torch.zeros(1, *input_shape)).shape[1]
    features.train()
    return nn.Sequential(*features, nn.Linear(flat, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))
