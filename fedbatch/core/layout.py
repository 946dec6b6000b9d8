"""What an example holds whose input is several arrays: they lie one after another in one row of one array.

All that indexes, stacks, sends or hashes inputs therefore meets one array with an example a row. Only the data set,
which packs the rows, and the call of the model, which takes them apart, know what is in them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

ATTENTION_MASK = "attention_mask"
"""What a model calls the argument that is 1 where a sequence has an element and 0 where it is padded."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """One of the arrays of an input.

    Attributes:
        name: keyword under which a model gets it, or its place among the positional arguments, from 0.
        shape: of one example.
        kind: "float", "int" or "bool": a model gets its own precision, int64 or bool.
        is_padded: whether the first axis of an example is a sequence that was padded to the longest.
        is_optional: whether only a model that has an argument of this name gets it.
    """

    name: str | int
    shape: Shape
    kind: str
    is_padded: bool = False
    is_optional: bool = False

    @property
    def size(self) -> int:
        """Numbers of one example."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The parts of a row, in their order.

    >>> Layout((Part("a", (2, 3), "float"), Part("b", (), "int"))).shapes
    {'a': (2, 3), 'b': ()}
    """

    parts: tuple[Part, ...]

    @property
    def shapes(self) -> Mapping[str, Shape] | tuple[Shape, ...] | Shape:
        """Shapes by name, or by place; of one array without a name just its own."""
        given = [part for part in self.parts if not part.is_optional]
        if any(isinstance(part.name, str) for part in given):
            return {str(part.name): part.shape for part in given}
        return given[0].shape if len(given) == 1 else tuple(part.shape for part in given)

    @property
    def sizes(self) -> list[int]:
        """Numbers of each part."""
        return [part.size for part in self.parts]

    @property
    def in_words(self) -> str:
        """Names and shapes, for messages.

        >>> Layout((Part("a", (2, 3), "float"), Part(ATTENTION_MASK, (2,), "int", is_optional=True))).in_words
        'a (2, 3)'
        """
        return ", ".join(f"{_called(part)} {part.shape}" for part in self.parts if not part.is_optional)


def _called(part: Part) -> str:
    return part.name if isinstance(part.name, str) else f"input {part.name}"
