"""An autoencoder of images in black and white."""

import math
from collections.abc import Sequence

from torch import nn


def autoencoder(input_shape: Sequence[int], num_classes: int, width: int, code: int) -> nn.Module:
    """Perceptron that squeezes an image through ``code`` numbers and tells each pixel's class.

    Input (batch, *input_shape), logits (batch, pixels, num_classes), as many pixels as the input has numbers.

    >>> import torch
    >>> autoencoder((1, 28, 28), 2, width=64, code=8)(torch.zeros(3, 1, 28, 28)).shape
    torch.Size([3, 784, 2])
    """
    if width < 1 or code < 1:
        raise ValueError(f"width and code must be at least 1 (got {width} and {code})")
    pixels = math.prod(input_shape)
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(pixels, width), nn.Tanh(), nn.Linear(width, code)),
        *(nn.Linear(code, width), nn.Tanh(), nn.Linear(width, pixels * num_classes)),
        nn.Unflatten(1, (pixels, num_classes)),
    )
