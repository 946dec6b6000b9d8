"""Columns of a table as arrays: numbers (dates and truth values among them), vectors, or texts."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fedbatch.data import text_numbers
from fedbatch.data.rows import listed

REMEDY = "it must hold an image, text, number or fixed-length vector per row"


@dataclass(frozen=True)
class Column:
    """One column of one split.

    Attributes:
        name: of the column.
        split: of the split.
        values: ``(rows, width)`` numbers of any type, or ``(rows,)`` texts as objects; anything where missing.
        missing: ``(rows, width)`` or ``(rows,)``, where there is no value.
    """

    name: str
    split: str
    values: npt.NDArray[Any]
    missing: npt.NDArray[np.bool_]

    @property
    def is_text(self) -> bool:
        """Whether the values are texts."""
        return self.values.ndim == 1

    @property
    def rows_missing(self) -> npt.NDArray[np.bool_]:
        """Rows without a value, or with a vector that lacks one."""
        return np.asarray(self.missing.reshape(len(self.missing), -1).any(axis=1))


def read(splits: dict[str, Any], name: str) -> list[Column]:
    """A column of each split, text in all of them or numbers in all.

    Raises:
        ValueError: values that are neither numbers nor texts, infinite numbers, vectors of several lengths, or text in
            which most fields are numbers.
    """
    field = f"dataset.input_column={name}"
    arrays = {}
    for split, rows in splits.items():
        if type(rows.features[name]).__name__ == "Json":
            raise ValueError(f"{field}: values of several kinds in split {split}; {REMEDY}")
        arrays[split] = _value_type(rows.select_columns([name]).with_format("arrow")[:][name].combine_chunks())
    texts = {split: array for split, array in arrays.items() if pa.types.is_string(array.type)}
    found = _numbers_in(texts, field)
    return [
        _text(array, split, name) if split in texts and not found else _numeric(found.get(split, array), split, name)
        for split, array in arrays.items()
    ]


def _text(array: Any, split: str, name: str) -> Column:
    texts = np.array(array.to_pylist(), dtype=object)
    return Column(name, split, texts, np.array([text is None for text in texts], bool))


def _numeric(array: Any, split: str, name: str) -> Column:
    field, rows, width = f"dataset.input_column={name}", len(array), 1
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        array, length = _flat(array, field, split, rows)
        width *= length
    values, missing = (each.reshape(rows, width) for each in _numbers(array, field, split))
    infinite = np.asarray((np.isinf(values.astype(np.float64)) & ~missing).any(axis=1))
    if infinite.any():
        raise ValueError(f"{field}: infinite in {listed(infinite)} of split {split}; replace or drop them")
    return Column(name, split, values, missing)


def as_float64(parts: list[Column]) -> list[npt.NDArray[np.float64]]:
    """The numbers of all splits, whole ones counted from their smallest so that none beyond 2**53 is rounded."""
    kinds = {part.values.dtype.kind for part in parts}
    if kinds <= {"i"} or kinds <= {"u"}:
        # Modulo 2**64 a difference is right even where it has no place in int64.
        lowest = min(part.values[~part.missing].min() for part in parts)
        offset = np.asarray(lowest).astype(np.uint64)
        values = [(part.values.astype(np.uint64) - offset).astype(np.float64) for part in parts]
    else:
        values = [part.values.astype(np.float64) for part in parts]
    return [np.where(part.missing, np.nan, each) for part, each in zip(parts, values, strict=True)]


def _value_type(array: Any) -> Any:
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
        array = array.cast(pa.string())
    return array


def _flat(array: Any, field: str, split: str, rows: int) -> tuple[Any, int]:
    """The values of vectors one after another, and the length that all of them have."""
    lengths = pc.list_value_length(array)
    if lengths.null_count:
        without = pc.is_null(lengths).to_numpy(False).reshape(rows, -1).any(axis=1)
        raise ValueError(f"{field}: no vector in {listed(without)} of split {split}; fill or drop them")
    counts = lengths.to_numpy()
    if len({*counts.tolist()}) != 1 or not counts[0]:
        other = (counts != np.bincount(counts).argmax()).reshape(rows, -1).any(axis=1)
        told = f"another length in {listed(other)}" if counts.any() else "empty vectors"
        raise ValueError(f"{field}: {REMEDY}; {told} of split {split}")
    return _value_type(array.flatten()), int(counts[0])


def _numbers_in(texts: dict[str, Any], field: str) -> dict[str, Any]:
    """The numbers or dates that the text of each split stands for; none where it is text."""
    for convert in (text_numbers.parsed, text_numbers.dates):
        found = {split: convert(pa.chunked_array([array])) for split, array in texts.items()}
        if all(values is not None for values in found.values()):
            return found
    marked = {split: text_numbers.by_notation(pa.chunked_array([array])) for split, array in texts.items()}
    filled = sum(len(array) - array.null_count for array in texts.values())
    numbers = sum(np.count_nonzero(plain | other) for plain, other, _ in marked.values())
    if 2 * numbers < filled:
        return {}
    for split, (_, other, none) in marked.items():
        wrong = other if other.any() else none
        if wrong.any():
            example = texts[split][int(wrong.argmax())].as_py()
            remedy = "write 1.5 for 1,5, and no separators of thousands, units or signs of currency"
            if wrong is none:
                remedy = "correct them, or leave the field empty and see dataset.missing"
            told = f"no plain number ({example!r}) in {listed(wrong)} of split {split}"
            raise ValueError(f"{field}: {told}; {remedy}")
    return {}


def _numbers(array: Any, field: str, split: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Values and where there are none, flat; dates and durations as whole numbers of their unit."""
    kind = array.type
    if pa.types.is_temporal(kind):
        array = array.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
    elif pa.types.is_boolean(kind):
        array = array.cast(pa.uint8())
    elif pa.types.is_decimal(kind) or pa.types.is_null(kind):
        array = array.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise ValueError(f"{field}: {REMEDY}; it holds {kind} in split {split}")
    missing = array.is_null(nan_is_null=True).to_numpy(False).astype(bool)
    if array.null_count:
        array = array.fill_null(0)
    return array.to_numpy(False), missing
