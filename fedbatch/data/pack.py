"""Inputs that are several arrays, or sequences of several lengths, as one array with an example a row."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbatch.core.layout import ATTENTION_MASK, Layout, Part
from fedbatch.data import check_inputs
from fedbatch.data.check_labels import NO_LABEL
from fedbatch.data.rows import failing, listed

Array = npt.NDArray[Any]
Splits = Sequence[Any]
"""Of the training and of the test split."""
SPLITS = ("train", "test")
KINDS = {"b": "bool", "i": "int", "u": "int", "f": "float"}
WHOLE = 2**24
"""Whole numbers up to this stay what they are as float32."""


def is_ragged(values: Any) -> bool:
    """Whether values are sequences of several lengths."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        return False
    if not isinstance(values, np.ndarray | Sequence) or isinstance(values, str):
        return False
    sized = [hasattr(row, "__len__") and not isinstance(row, str) for row in values]
    return bool(sized) and all(sized) and len({len(row) for row in values}) > 1


def pack(x: Splits, rows: Sequence[int], pad: float) -> tuple[list[Array], Layout] | None:
    """The training and the test inputs, (N, width) each, and what lies where; None where each is one array.

    Args:
        x: of both splits: a mapping or a tuple of arrays with an example a row, or one list of sequences.
        rows: examples of the splits, by their labels.
        pad: what is put behind the end of a sequence, up to the longest of both splits.

    Raises:
        ValueError: arrays of the splits that differ, or that a row cannot hold; names the array.
    """
    found = [_by_name(*each) for each in zip(x, rows, strict=True)]
    if found == [None, None]:
        return None
    named: list[dict[str | int, Any]] = [{0: each} if own is None else own for each, own in zip(x, found, strict=True)]
    train, test = named
    if train.keys() != test.keys():
        raise ValueError(f"dataset: train_x has {_names(train)} and test_x {_names(test)}; they must agree")
    masks: dict[str | int, list[Array]] = {}
    arrays: dict[str | int, list[Array]] = {}
    called = {name: _named(name, is_alone=train.keys() == {0}) for name in train}
    for name in train:
        pair = train[name], test[name]
        if any(map(is_ragged, pair)):
            arrays[name], masks[name] = _padded(called[name], pair, 0 if name == ATTENTION_MASK else pad)
        else:
            arrays[name] = [_array(*each) for each in zip(called[name], pair, strict=True)]
    parts = [replace(_part(name, called[name], pair, rows), is_padded=name in masks) for name, pair in arrays.items()]
    if masks and ATTENTION_MASK not in arrays:
        mask = _one_mask(masks)
        arrays[ATTENTION_MASK] = mask
        parts.append(Part(ATTENTION_MASK, mask[0].shape[1:], "int", is_padded=True, is_optional=True))
    return [_rows(split, [pair[i] for pair in arrays.values()], parts) for i, split in enumerate(SPLITS)], Layout(
        tuple(parts)
    )


def padded_labels(y: Splits) -> Splits:
    """Labels of the positions of sequences of several lengths, with -100 behind their end; all others as they are.

    Raises:
        ValueError: a row that is no sequence of numbers.
    """
    return tuple(_padded(("train_y", "test_y"), y, NO_LABEL)[0]) if any(map(is_ragged, y)) else y


def _by_name(x: Any, rows: int) -> dict[str | int, Any] | None:
    if isinstance(x, Mapping):
        if not x or not all(isinstance(name, str) and name.isidentifier() for name in x):
            raise ValueError(
                f"dataset: inputs have the keys {list(x)}; each must be a name that the model's forward has"
            )
        return dict(x)
    if isinstance(x, tuple) and x and all(hasattr(each, "__len__") and len(each) == rows for each in x):
        return dict(enumerate(x))
    return {0: x} if is_ragged(x) else None


def _padded(names: tuple[str, str], pair: Splits, pad: float) -> tuple[list[Array], list[Array]]:
    """Both splits as (N, longest), and 1 where there is an element."""
    found = []
    for name, values in zip(names, pair, strict=True):
        rows = [np.asarray(row) for row in values]
        wrong = np.array([row.ndim != 1 or not len(row) or row.dtype.kind not in KINDS for row in rows])
        if wrong.any():
            first = rows[int(wrong.argmax())]
            told = f"shape {first.shape} of type {first.dtype} in {listed(wrong)}"
            raise ValueError(f"dataset: {name} has {told}; sequences are numbers along one axis, at least one")
        found.append(rows)
    lengths = [np.array([len(row) for row in rows]) for rows in found]
    width = int(max(each.max() for each in lengths))
    kind = np.result_type(*{row.dtype for rows in found for row in rows})
    if kind.kind != "f" and pad != int(pad):
        raise ValueError(f"dataset: pad must be a whole number for sequences of {kind} (got {pad})")
    masks = [(np.arange(width) < each[:, None]).astype(np.int64) for each in lengths]
    arrays = []
    for rows, mask in zip(found, masks, strict=True):
        array = np.full(mask.shape, pad, kind if kind.kind in "bf" or kind == np.uint64 else np.int64)
        array[mask.astype(bool)] = np.concatenate(rows)
        arrays.append(array)
    return arrays, masks


def _one_mask(masks: dict[str | int, list[Array]]) -> list[Array]:
    first, *others = masks.items()
    for name, mask in others:
        if not all(map(np.array_equal, first[1], mask)):
            raise ValueError(
                f"dataset: sequences of {name} and {first[0]} have other lengths, so one mask does not do; pad them "
                "yourself, and give a mask under a name"
            )
    return first[1]


def _array(name: str, value: Any) -> Array:
    if np.ma.isMaskedArray(value) and np.ma.getmaskarray(value).any():
        raise ValueError(f"dataset: {name} is masked in places; fill or drop what is missing")
    try:
        array = np.asarray(value)
    except Exception as error:  # each raises its own
        told = " ".join(str(error).split())
        raise ValueError(f"dataset: {name} ({type(value).__name__}) cannot become a NumPy array: {told}") from error
    if array.dtype.kind not in KINDS or not array.ndim or not array.size:
        told = f"{type(value).__name__} of type {array.dtype} and shape {array.shape}"
        raise ValueError(f"dataset: {name} is a {told}; it must be an array of numbers with an example a row")
    return array


def _part(name: str | int, called: Sequence[str], pair: list[Array], rows: Sequence[int]) -> Part:
    for named, split, array, wanted in zip(called, SPLITS, pair, rows, strict=True):
        if len(array) != wanted:
            raise ValueError(f"dataset: {named} has {len(array):,} examples and {split}_y {wanted:,}; they must agree")
    kinds, shapes = ({each.dtype.kind for each in pair}, {each.shape[1:] for each in pair})
    if len(shapes) > 1 or len({KINDS[kind] for kind in kinds}) > 1:
        told = " and of test ".join(f"{each.shape[1:]} of {each.dtype}" for each in pair)
        raise ValueError(f"dataset: an example of {called[0]} is {told}; they must agree")
    return Part(name, pair[0].shape[1:], KINDS[pair[0].dtype.kind])


def _rows(split: str, arrays: list[Array], parts: list[Part]) -> Array:
    """One array (N, width) of all, int64 where none holds fractions and else float32."""
    has_fractions = any(part.kind == "float" for part in parts)
    columns = []
    for array, part in zip(arrays, parts, strict=True):
        if part.kind == "float":
            array = check_inputs.inputs(
                f"{split}_x[{part.name!r}]", array if array.ndim > 1 else array[:, None], tokens=False
            )
        elif part.kind == "int":
            limit, why = (WHOLE, " beside fractions") if has_fractions else (np.iinfo(np.int64).max, "")
            _check_whole(f"{split}_x[{part.name!r}]", array, limit, why)
        columns.append(array.reshape(len(array), -1).astype(np.float32 if has_fractions else np.int64, copy=False))
    return np.concatenate(columns, axis=1)


def _check_whole(name: str, array: Array, limit: int, why: str) -> None:
    if -limit <= int(array.min()) and int(array.max()) <= limit:
        return
    beyond = failing(array.reshape(len(array), -1), lambda block: (block >= -limit) & (block <= limit))
    raise ValueError(
        f"dataset: {name} goes beyond {limit:,} in {listed(beyond)}, too large{why}; take np.unique(..., "
        "return_inverse=True)[1]"
    )


def _named(name: str | int, is_alone: bool) -> tuple[str, str]:
    return ("train_x", "test_x") if is_alone else (f"train_x[{name!r}]", f"test_x[{name!r}]")


def _names(values: Mapping[str | int, Any]) -> str:
    return ", ".join(map(str, values))
