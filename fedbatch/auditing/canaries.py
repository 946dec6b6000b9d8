"""A task of canaries: each moves one coordinate of the gradient and no other, by as much as clipping lets through.

The strongest attacker that the guarantee allows chooses data and model, and sees every release. With a coordinate for
each canary no other data stand in the way of a guess.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedbatch.data.dataset import Dataset
from fedbatch.losses.examples import Reduction


def present(canaries: int, seed: int) -> npt.NDArray[np.bool_]:
    """Which canaries (n,) are there, each by a fair coin."""
    return np.random.default_rng([seed, canaries]).random(canaries) < 0.5


def dataset(canaries: int, length: float, seed: int) -> Dataset:
    """One example a canary, ``length`` along an axis of its own; one that is not there is zeroed out."""
    there = present(canaries, seed).astype(np.float32)
    x = np.diag(np.float32(length) * there)
    y = np.zeros(canaries, np.int64)
    return Dataset("canaries", x, y, np.eye(2, canaries, dtype=np.float32), y[:2], 2)


def model(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """One weight for each canary and class, all zero at the start."""
    layer = nn.Linear(input_shape[0], num_classes, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


class ConstantGradient:
    """Minus the logit of the label: its gradient is the input, whatever the parameters have become."""

    per_example = True

    def __call__(self, logits: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Loss of ``logits`` (batch, classes), a scalar or (batch,) with "none"."""
        losses = -logits.gather(-1, labels[:, None]).squeeze(-1)
        return losses if reduction == "none" else losses.mean()


def read(update: Tensor) -> tuple[Tensor, Tensor]:
    """What an update (2 m,) holds along each canary's own contribution (m,), and as many values of noise alone (m,)."""
    own, empty = update.view(2, -1).to(torch.float64)
    return -own, empty
