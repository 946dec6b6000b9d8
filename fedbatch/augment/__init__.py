"""Augmentations: what a client changes at random in the examples of a batch, drawn anew in each step.

Each is a callable ``augment(x, keys)`` of inputs (n, ...) and int64 keys (n,), one an example, that gives inputs of the
same shape and type. All that it draws follows from the keys: so executors agree, and a resumed run goes on as it would.
"""

from fedbatch.augment.flip_crop import FlipCrop
from fedbatch.augment.transform import Transform

__all__ = ["FlipCrop", "Transform"]
