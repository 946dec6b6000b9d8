"""What clients change at random in their examples: built, tried, and put into a job before any executor sees it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from torch import Tensor

from fedbatch.clients.draw import Draw
from fedbatch.clients.job import Job
from fedbatch.config.build import build
from fedbatch.config.schema import RunConfig
from fedbatch.core.errors import ConfigError
from fedbatch.core.layout import Layout
from fedbatch.core.random import Ints, bits, key
from fedbatch.core.transfer import to_device

Augment = Callable[[Tensor, Ints], Tensor]
TRIED = 4
MOST_EXAMPLES = 2**32
"""Of a batch, so that a step and a place in it make one number."""


def augment_of(config: RunConfig, layout: Layout | None, x: Tensor, y: Tensor, clips_examples: bool) -> Augment | None:
    """The run's augmentation, tried on a few examples ``x`` (n, ...) with labels ``y`` (n, ...); None without.

    Raises:
        ConfigError: it gives other inputs than it takes, or labels or the guarantee do not allow it.
    """
    if not config.augment:
        return None
    if clips_examples:
        raise ConfigError(
            "augment: example-level privacy takes examples as they are; set augment=none, or privacy=client_central"
        )
    if layout is not None:
        raise ConfigError(
            f"augment: an input is several arrays here ({layout.in_words}), and an augmentation takes one; set "
            "augment=none"
        )
    if y.dim() > 2:
        raise ConfigError("augment: labels of pixels would have to move with their image; set augment=none")
    augment: Augment = build("augment", config.augment)
    few, keys = x[:TRIED], np.arange(len(x[:TRIED]), dtype=np.int64)
    try:
        first, again = augment(few.clone(), keys), augment(few.clone(), keys)
    except Exception as error:  # whatever a transform of anybody's raises is about these examples
        text = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(text if text.startswith("augment") else f"augment: {text}") from error
    if not isinstance(first, Tensor) or first.shape != few.shape or first.dtype != few.dtype:
        found = f"{tuple(first.shape)} of {first.dtype}" if isinstance(first, Tensor) else type(first).__name__
        raise ConfigError(f"augment: gives {found} for examples {tuple(few.shape)} of {few.dtype}; it must keep both")
    if not bool((first == again).all()):
        raise ConfigError(
            "augment: gives two results for the same examples and keys; draw from what the keys give, or with the "
            "generators of torch, Python and NumPy through fedbatch.augment.Transform"
        )
    return augment


def augmented(job: Job, augment: Augment, seed: int, round_: int) -> Job:
    """The job on changed copies of the examples that it draws.

    A draw is keyed by round, client, step and place in the batch, so it does not matter who else is on the node.
    """
    positions = job.draw.positions
    _, steps, width = positions.shape
    places = np.arange(steps, dtype=np.int64)[:, None] * MOST_EXAMPLES + np.arange(width, dtype=np.int64)
    keys = bits(key(seed, "augment", round_), job.clients[:, None, None], places[None]) >> np.uint64(1)
    index = to_device(positions.ravel(), job.x.device)
    changed = augment(job.x[index], keys.astype(np.int64).ravel())
    draw = Draw(np.arange(positions.size, dtype=np.int64).reshape(positions.shape), job.draw.counts)
    return replace(job, x=changed.contiguous(), y=job.y[index], draw=draw)
