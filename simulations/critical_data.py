"""Data sets, models and a loss of the tasks whose critical batch size is measured, where fedbatch has none.

Test splits are small: nothing is read from them.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from torch import Tensor, nn

from fedbatch.data import fashion_mnist
from fedbatch.data.dataset import Dataset
from fedbatch.data.shakespeare import role_parts
from fedbatch.models.resnet import BasicBlock

TEST = 200
SEED = 2018  # of noise and draws that belong to the data
CLASSES = 10


@lru_cache(maxsize=1)
def fashion(label_noise: float = 0.0, pool: int = 1) -> Dataset:
    """All 60,000 images of Fashion-MNIST for training.

    Args:
        label_noise: share of the training labels, in [0, 1], that are drawn anew from all classes.
        pool: side of the squares of pixels that become one pixel, by their mean; it divides 28.
    """
    whole, rng = fashion_mnist(), np.random.default_rng(SEED)
    x = whole.train_x.reshape(-1, 1, 28 // pool, pool, 28 // pool, pool).mean(axis=(3, 5))
    drawn = rng.random(len(x)) < label_noise
    y = np.where(drawn, rng.integers(CLASSES, size=len(x)), whole.train_y)
    return Dataset("fashion", x, y, x[:TEST], y[:TEST], CLASSES)


@lru_cache(maxsize=1)
def next_character(context: int = 8, examples: int = 60_000) -> Dataset:
    """The character of Shakespeare's plays that follows ``context`` others, at places drawn without replacement."""
    parts, symbols = role_parts(0.1)
    text = np.concatenate([first for first, _ in parts])
    starts = np.random.default_rng(SEED).choice(len(text) - context, examples + TEST, replace=False)
    drawn = text[starts[:, None] + np.arange(context + 1)].astype(np.int64)
    x, y = np.ascontiguousarray(drawn[:, :-1]), np.ascontiguousarray(drawn[:, -1])
    return Dataset("next_character", x[TEST:], y[TEST:], x[:TEST], y[:TEST], symbols)


@lru_cache(maxsize=1)
def line(features: int = 100, examples: int = 60_000, noise: float = 1.0) -> Dataset:
    """Normal features of falling variance, and after them the target: their weighted sum and normal noise.

    Labels mean nothing; for `residual` and `Square`.
    """
    rng = np.random.default_rng(SEED)
    scales = np.geomspace(1, 0.1, features)
    x = rng.standard_normal((examples, features)) * scales
    target = x @ (1 / (scales * features**0.5)) + noise * rng.standard_normal(examples)
    both = np.column_stack([x, target]).astype(np.float32)
    labels = np.arange(examples) % 2
    return Dataset("line", both, labels, both[:TEST], labels[:TEST], 2)


class Residual(nn.Module):
    """A linear regression that answers with its error: the last number of the input is the target."""

    def __init__(self, features: int):
        super().__init__()
        self.linear = nn.Linear(features, 2)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, features + 1) to (batch, 2)."""
        return self.linear(x[:, :-1]) - x[:, -1:]


def residual(input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """The regression of `line`."""
    return Residual(input_shape[0] - 1)


class Square:
    """Half the mean square of the outputs."""

    per_example = True

    def __call__(self, logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """Of ``logits`` (batch, outputs), a scalar, or (batch,) with "none"."""
        loss = logits.square().mean(dim=1) / 2
        return loss.mean() if reduction == "mean" else loss


def characters(input_shape: Sequence[int], num_classes: int, embedding: int = 16, width: int = 64) -> nn.Module:
    """Next character from the embeddings of those before it (Bengio et al. 2003)."""
    return nn.Sequential(
        nn.Embedding(num_classes, embedding),
        nn.Flatten(),
        nn.Linear(embedding * input_shape[0], width),
        nn.ReLU(),
        nn.Linear(width, num_classes),
    )


def resnet8(input_shape: Sequence[int], num_classes: int, width: int = 8, groups: int = 4) -> nn.Module:
    """Three stages of one block, ``width`` to ``4 * width`` channels (He et al. 2016, section 4.2), with group norm."""
    stem = nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False), nn.GroupNorm(groups, width), nn.ReLU()
    blocks = [BasicBlock(width * max(2**i // 2, 1), width * 2**i, 2 if i else 1, "group", groups) for i in range(3)]
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes)
    return nn.Sequential(*stem, *blocks, *head)
