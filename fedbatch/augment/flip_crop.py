"""Mirrored and shifted images, as networks on small images are trained."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedbatch.core.random import Ints, bits
from fedbatch.core.transfer import to_device


@dataclass(frozen=True)
class FlipCrop:
    """A random crop of the padded image, mirrored left to right half of the time (He et al. 2016, sec. 4.2).

    Args:
        flip: whether to mirror.
        padding: zeros on each side, in pixels, at least 0; the image moves by at most so many.
    """

    flip: bool
    padding: int

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ValueError(f"augment.padding must be at least 0 (got {self.padding})")

    def __call__(self, x: Tensor, keys: Ints) -> Tensor:
        """Images (n, C, H, W), changed by their keys (n,)."""
        if x.dim() != 4:
            raise ValueError(
                f"augment: FlipCrop is for images (C, H, W), and an example has shape {tuple(x.shape[1:])}"
            )
        height, width = x.shape[2:]
        down, right, mirrored = (bits(0, keys, np.full(1, use)) for use in range(3))
        places = 2 * self.padding + 1
        rows = np.arange(height) + (down % np.uint64(places)).astype(np.int64)[:, None]
        columns = np.arange(width) + (right % np.uint64(places)).astype(np.int64)[:, None]
        if self.flip:
            columns = np.where((mirrored % np.uint64(2)).astype(bool)[:, None], columns[:, ::-1], columns)
        padded = F.pad(x, [self.padding] * 4)
        images, channels = torch.arange(len(x), device=x.device), torch.arange(x.shape[1], device=x.device)
        i, j = (to_device(np.ascontiguousarray(each), x.device) for each in (rows, columns))
        return padded[images[:, None, None, None], channels[None, :, None, None], i[:, None, :, None], j[:, None, None]]
