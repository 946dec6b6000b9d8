"""Any transform of single examples, such as those of ``torchvision.transforms.v2``."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedbatch.core.random import Ints


@dataclass(frozen=True)
class Transform:
    """A transform of one example after the other, each with generators that are seeded by its key.

    The generators are those of torch on the CPU, of Python and of NumPy; they are left as they were.

    Args:
        transform: of an example (...), to one of the same shape.
    """

    transform: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor, keys: Ints) -> Tensor:
        """Examples (n, ...), each changed by its key."""
        state, numpy_state = random.getstate(), np.random.get_state()
        found = []
        try:
            with torch.random.fork_rng(devices=[]):
                for example, key in zip(x, keys.tolist(), strict=True):
                    torch.manual_seed(key)
                    random.seed(key)
                    np.random.seed(key % 2**32)
                    found.append(self.transform(example.clone()))
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)
        return torch.stack(found) if found else x.clone()
