"""Stages of compression one after the other, and the bytes that they make of an update."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fedbatch.compression.stage import Field, Stage
from fedbatch.core.random import key as derived


class NotFiniteError(ValueError):
    """What is decoded is not finite, as what a stage cannot hold is not."""


@dataclass(frozen=True)
class Compression:
    """How clients' updates are made smaller: stages, applied in order and undone in reverse.

    What a client sends has a length that is known beforehand: for each stage what it sends besides, then the vector
    that the last stage gives, each number in the bytes of its dtype.

    Attributes:
        stages: by a name of their own.
        error_feedback: clients keep what compression takes from their updates, and add it to their next one
            (Seide et al. 2014; Karimireddy et al. 2019).
    """

    stages: Mapping[str, Stage]
    error_feedback: bool = False

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("compression: has no stages; name one, or use compression=none")

    def on_model(self, model: Any) -> "Compression":
        """The same for a `FlatModel`.

        Raises:
            ValueError: a stage cannot work with the model where it stands, or has errors that cannot be made up for.
        """
        names = list(self.stages)
        needs = [name for name in names[1:] if hasattr(self.stages[name], "on_model")]
        if needs:
            raise ValueError(f"compression: stage {needs[0]} needs the model's own tensors; make it the first")
        made = {name: s.on_model(model) if hasattr(s, "on_model") else s for name, s in self.stages.items()}
        chain = replace(self, stages=made)
        size = len(model.params)
        if size >= 2**31:
            raise ValueError(f"compression: places in {size:,} numbers do not fit in 32 bits; use compression=none")
        for (name, stage), n in zip(made.items(), chain._lengths(size)[:-1], strict=True):
            if self.error_feedback and not stage.worst_error(n) < 1:
                raise ValueError(
                    f"compression.error_feedback: what stage {name} takes away may be longer than what it is given "
                    f"({stage.worst_error(n):.3g} times, squared), so that it would grow from round to round; use "
                    "error_feedback=false, or a finer or biased stage (RandK: is_unbiased=false; QSGD: more levels or "
                    "a smaller bucket; Sign: majority=false)"
                )
        return chain

    @property
    def is_unbiased(self) -> bool:
        """Whether the mean of what the server decodes is on average that of the updates, round by round."""
        return all(stage.is_unbiased for stage in self.stages.values()) and not self.error_feedback

    @property
    def keeps_length(self) -> bool:
        """Whether the mean of what the server decodes is in the unit of updates; else it tells nothing of noise."""
        return all(getattr(stage, "keeps_length", True) for stage in self.stages.values())

    def encode(self, vector: Tensor, key: int) -> Tensor:
        """The bytes, uint8, that stand for a vector (n,)."""
        sent = []
        for index, stage in enumerate(self.stages.values()):
            vector, side = stage.encode(vector, derived(key, "stage", index))
            sent += list(side.values())
        return torch.cat([each.contiguous().view(torch.uint8) for each in (*sent, vector)])

    def decode(self, payload: Tensor, n: int, dtype: torch.dtype, key: int) -> Tensor:
        """The vector (n,) that bytes (`num_bytes`,), uint8, stand for.

        Raises:
            NotFiniteError: numbers are not finite.
            ValueError: they are nothing else that `encode` gives.
        """
        parts = payload.split([_bytes(each) for each in self._fields(n, dtype)])
        read = (part.clone().view(kind) for part, (kind, _) in zip(parts, self._fields(n, dtype), strict=True))
        sides = [{name: next(read) for name in stage.fields(m)} for stage, m in self._each(n)]
        vector = next(read)
        for index, ((stage, m), side) in reversed(list(enumerate(zip(self._each(n), sides, strict=True)))):
            vector = stage.decode(vector, side, m, derived(key, "stage", index))
        if not vector.isfinite().all():
            raise NotFiniteError("numbers are not finite")
        return vector

    def aggregated(self, mean: Tensor) -> Tensor:
        """What the server steps along, from the mean (n,) of all decoded vectors."""
        for stage in self.stages.values():
            mean = stage.aggregated(mean) if hasattr(stage, "aggregated") else mean
        return mean

    def num_bytes(self, n: int, dtype: torch.dtype) -> int:
        """Of what stands for a vector (n,)."""
        return sum(map(_bytes, self._fields(n, dtype)))

    def _each(self, n: int) -> Iterator[tuple[Stage, int]]:
        """The stages, each with the length of the vector that it is given."""
        yield from zip(self.stages.values(), self._lengths(n), strict=False)

    def _lengths(self, n: int) -> list[int]:
        lengths = [n]
        for stage in self.stages.values():
            lengths.append(stage.length(lengths[-1]))
        return lengths

    def _fields(self, n: int, dtype: torch.dtype) -> list[Field]:
        besides = [each for stage, m in self._each(n) for each in stage.fields(m).values()]
        return [*besides, (dtype, self._lengths(n)[-1])]


def _bytes(of: Field) -> int:
    return of[0].itemsize * of[1]


def client_key(seed: int, round_: int, client: int) -> int:
    """The key by which a client's update of a round is encoded and decoded."""
    return derived(seed, "compression", round_, client)
