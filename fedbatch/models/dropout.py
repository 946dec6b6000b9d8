"""Dropout whose draws follow from a key: the same for an example in whatever batch it is computed.

A plain dropout draws for a whole batch in the order of the calls, so a client's draw would depend on who shares the
batch. Here a draw is a hash of (client's key, call of the forward, place of the number within the client's batch), in
tensor arithmetic that torch.func can batch too. Hence executors agree, and a resumed run draws what it would have.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SHARED_AXES: dict[tuple[Any, str], int] = {
    (F, "dropout"): 0,
    (torch, "dropout"): 0,
    (F, "dropout1d"): 1,
    (F, "dropout2d"): 2,
    (F, "dropout3d"): 3,
}
"""Trailing axes that share one draw. Other random functions draw from torch's generator, seeded for each client."""

LEVELS = 2**31  # a draw is one of so many equal parts of [0, 1)
# The odd constants of SplitMix64, as signed numbers: torch multiplies int64 modulo 2^64.
_GOLDEN, _MIX1, _MIX2 = (c - 2**64 for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_STEP, _FIRST, _SECOND = 0x2C1B3C6D, 0x7FEB352D, 0x297A2D39  # odd, below 2^31


@contextmanager
def keyed_dropout(
    keys: Tensor, rows: int, slots: Tensor | int = 0, seed: int = 0, *, several: bool = False
) -> Iterator[None]:
    """Let dropout draw by key; to be left only after the backward, for which checkpointed layers are called again.

    Torch's functions are replaced meanwhile, as a mode of torch would be off in that second call.

    Args:
        keys: int64, one for the whole batch, or (rows,), one for each example.
        rows: examples of the batch.
        slots: place of the first example in its client's batch, or (rows,) of each.
        seed: of torch's own generator, for whatever else draws; in ``[0, 2^62)``.
        several: whether several clients are computed at once, who would share whatever else is drawn.

    Raises:
        RuntimeError: ``several`` clients shared a draw.
    """
    draws = _Draws(keys, rows, slots, seed)
    originals = {place: getattr(*place) for place in SHARED_AXES}
    for generator in _generators():
        generator.manual_seed(seed)
    try:
        for (module, name), axes in SHARED_AXES.items():
            setattr(module, name, partial(draws.dropout, originals[module, name], axes))
        before = _shared_generators()
        yield
        if several and before != _shared_generators():
            raise RuntimeError("a draw that is not dropout's would be shared by clients")
    finally:
        for (module, name), original in originals.items():
            setattr(module, name, original)


def _shared_generators() -> tuple[object, ...]:
    """Of torch's, how far it is from its seed, which dropout by key moves; the states of NumPy's and Python's."""
    fresh = torch.Generator().manual_seed(torch.default_generator.initial_seed())
    is_fresh = torch.equal(fresh.get_state(), torch.get_rng_state())
    gpus = [generator.get_state().numpy().tobytes() for generator in torch.cuda.default_generators]
    numpy: tuple[object, ...] = np.random.get_state()  # type: ignore[assignment]
    return is_fresh, gpus, np.asarray(numpy[1]).tobytes(), numpy[2:], random.getstate()


def _generators() -> list[torch.Generator]:
    """Torch's own: the CPU's, and those of GPUs where CUDA has started."""
    return [torch.default_generator, *torch.cuda.default_generators]


def generator_states() -> tuple[object, ...]:
    """States of all generators that a layer may draw from, as values that can be compared."""
    numpy: tuple[object, ...] = np.random.get_state()  # type: ignore[assignment]
    own = [generator.get_state().numpy().tobytes() for generator in _generators()]
    return own, np.asarray(numpy[1]).tobytes(), numpy[2:], random.getstate()


@dataclass(frozen=True)
class _Draws:
    keys: Tensor
    rows: int
    slots: Tensor | int
    seed: int

    def dropout(
        self,
        original: Callable[..., Tensor],
        axes: int,
        input: Tensor,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
        *,
        train: bool | None = None,
    ) -> Tensor:
        """As ``original``, with draws of our own."""
        if not (training if train is None else train) or p == 0:
            return input
        if axes and input.dim() != axes + 2:  # not (examples, channels, positions ...): torch has rules of its own
            return original(input, p, training, inplace)
        shape = input.shape[: input.dim() - axes]
        keep = (self.uniform(shape, input.device) >= round(p * LEVELS)).view(*shape, *[1] * axes)
        factor = keep.to(input.dtype) * (1 / (1 - p) if p < 1 else 0.0)
        return input.mul_(factor) if inplace else input * factor

    def uniform(self, shape: torch.Size, device: torch.device) -> Tensor:
        """Uniform integers below ``LEVELS``, flat, for a tensor whose first axis holds the examples, or folds them."""
        # The count of calls lives in the generator's seed, so that a checkpointed layer, for which torch restores the
        # generator, draws again what it drew.
        call = torch.default_generator.initial_seed() - self.seed
        torch.default_generator.manual_seed(self.seed + call + 1)
        numbers = shape.numel()
        by_example = bool(shape) and shape[0] % self.rows == 0
        inner = numbers // self.rows if by_example else numbers
        keys, slots = self.keys.to(device), self.slots
        if keys.dim() == 0:
            index = torch.arange(numbers, device=device, dtype=torch.int32) + slots * inner
        elif by_example:
            assert isinstance(slots, Tensor)
            place = torch.arange(inner, device=device, dtype=torch.int32)
            index = place + (slots.to(device, torch.int32) * inner)[:, None]
            keys = keys[:, None]
        else:
            raise RuntimeError("dropout is applied to a tensor whose first axis does not hold the examples")
        return _hashed(index, _mixed(keys + _signed(_GOLDEN * (call + 1)))).flatten()


@contextmanager
def own_generators(is_random: bool) -> Iterator[None]:
    """Leave torch's, NumPy's and Python's generators as they were, whatever random layers do to them."""
    if not is_random:
        yield
        return
    kept = [generator.get_state() for generator in _generators()]
    numpy, python = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        for generator, state in zip(_generators(), kept, strict=False):  # CUDA may have started meanwhile
            generator.set_state(state)
        np.random.set_state(numpy)
        random.setstate(python)


def _hashed(index: Tensor, key: Tensor) -> Tensor:
    """31 uniform bits for each int32 index under an int64 key; in place, as this runs for every number dropped."""
    low, high = ((key >> by & 0x7FFFFFFF).to(torch.int32) for by in (0, 31))
    word = (index * _STEP + low).bitwise_and_(0x7FFFFFFF)
    word.bitwise_xor_(word >> 16).mul_(_FIRST).bitwise_and_(0x7FFFFFFF).bitwise_xor_(high)
    word.bitwise_xor_(word >> 15).mul_(_SECOND).bitwise_and_(0x7FFFFFFF)
    return word.bitwise_xor_(word >> 16)


def _mixed(word: Tensor) -> Tensor:
    """The finaliser of SplitMix64, for a few keys (Steele, Lea and Flood 2014)."""
    word = (word ^ _shifted(word, 30)) * _MIX1
    word = (word ^ _shifted(word, 27)) * _MIX2
    return word ^ _shifted(word, 31)


def _shifted(word: Tensor, by: int) -> Tensor:
    """Right shift that fills with zeros, as for unsigned numbers."""
    return (word >> by) & (2 ** (64 - by) - 1)


def _signed(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63
