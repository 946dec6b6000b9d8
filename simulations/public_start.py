"""Private training that starts from public data: a slice of a data set, a perceptron with a trained model's weights."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from fedbatch.data import Dataset
from fedbatch.models import mlp


def part(base: Dataset, start: int, stop: int) -> Dataset:
    """Training examples ``start`` to ``stop`` of a data set, in the order of its file; the test split stays.

    Raises:
        ValueError: no such examples.
    """
    if not 0 <= start < stop <= len(base.train_y):
        raise ValueError(f"start and stop must be in 0 .. {len(base.train_y)}, and rise (got {start} and {stop})")
    kept = slice(start, stop)
    return replace(base, name=f"{base.name}_{start}_{stop}", train_x=base.train_x[kept], train_y=base.train_y[kept])


def trained_mlp(input_shape: Sequence[int], num_classes: int, width: int, depth: int, file: str) -> nn.Module:
    """`fedbatch.models.mlp` with the weights of ``file``, which ``fedbatch export RUN FILE.pt`` has written."""
    model = mlp(input_shape, num_classes, width, depth)
    model.load_state_dict(torch.load(file, weights_only=True))
    return model
