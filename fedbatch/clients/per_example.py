"""Example-level clipping by the executors as they are: an example is a client with one example."""

from dataclasses import dataclass

import numpy as np

from fedbatch.clients.clip import Clip
from fedbatch.clients.draw import Draw
from fedbatch.clients.fedsgd import FedSGD
from fedbatch.core.random import Ints


@dataclass(frozen=True)
class PerExample(FedSGD):
    """FedSGD of clients with one example each, whose clipped gradients are added up.

    Attributes:
        per_layer: whether each layer has its own factor, which one weighted backward cannot apply.
    """

    per_layer: bool = False

    is_per_example = True


def as_examples(positions: Ints, clip: Clip) -> tuple[PerExample, Ints, Draw, np.ndarray]:
    """Work, ids, draw and weights of a job that clips and adds the gradients of the examples at ``positions`` (n,)."""
    count = len(positions)
    draw = Draw(positions[:, None, None], np.ones((count, 1), np.int64))
    return PerExample(clip.per_layer), np.arange(count, dtype=np.int64), draw, np.ones(count)
