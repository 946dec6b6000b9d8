"""Classes, numbers and owners of examples from columns of any kind."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fedbatch.data import columns
from fedbatch.data.rows import listed

FEW_CLASSES = 20


def labels(splits: dict[str, Any], column: str) -> tuple[list[npt.NDArray[np.int64]], list[Any]]:
    """The labels of each split, ``0 .. classes - 1``, and the classes, the sorted values of all splits.

    Whole numbers, truth values and texts are classes; numbers with a fraction, dates and lists are not.

    Raises:
        ValueError: a row without a label, or values that are no classes.
    """
    field = f"dataset.label_column={column}"
    values = [_values(rows, split, field, "have no label; drop them") for split, rows in splits.items()]
    kinds = {"text" if each.dtype.kind == "U" else "numbers" for each in values}
    if len(kinds) > 1:
        raise ValueError(f"{field} holds text in one split and numbers in another; write them alike")
    classes, y = np.unique(np.concatenate(values), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"{field}: all {len(y):,} rows are of one class ({classes[0]}); there is nothing to tell apart"
        )
    if len(classes) > max(FEW_CLASSES, len(y) / 2):
        told = f"{len(classes):,} values in {len(y):,} rows are no classes"
        remedy = "set dataset.label_column, task=regression for numbers to predict, or put the values in groups"
        raise ValueError(f"{field}: {told}; {remedy}")
    ends = np.cumsum([len(each) for each in values])[:-1]
    return [part.astype(np.int64) for part in np.split(y, ends)], _named(
        classes, next(iter(splits.values())).features[column]
    )


def _named(classes: npt.NDArray[Any], feature: Any) -> list[Any]:
    """Classes by the names that the hub keeps beside their numbers, where it does; numbers are whole."""
    if type(feature).__name__ == "ClassLabel":
        return [feature.names[int(each)] for each in classes]
    return classes.tolist() if classes.dtype.kind == "U" else [int(each) for each in classes]


def numbers(splits: dict[str, Any], names: list[str]) -> list[npt.NDArray[np.float64]]:
    """The labels of each split, float64 ``(rows, width)``, from columns of numbers or of vectors of one length.

    Raises:
        ValueError: a row without a label, or text.
    """
    by_column = []
    for name in names:
        field = f"dataset.label_column={name}"
        try:
            parts = columns.read(splits, name)
        except ValueError as error:
            raise ValueError(str(error).replace("dataset.input_column=", "dataset.label_column=", 1)) from error
        for part in parts:
            if part.is_text:
                raise ValueError(f"{field}: holds text in split {part.split}; numbers are predicted, set task=auto")
            if part.rows_missing.any():
                raise ValueError(f"{field}: {listed(part.rows_missing)} of split {part.split} have no label; drop them")
        widths = {part.values.shape[1] for part in parts}
        if len(widths) > 1:
            raise ValueError(f"{field}: holds vectors of {' and of '.join(map(str, sorted(widths)))} numbers")
        by_column.append([part.values.astype(np.float64) for part in parts])
    return [np.concatenate(each, axis=1) for each in zip(*by_column, strict=True)]


def owners(rows: Any, split: str, column: str) -> npt.NDArray[np.int64]:
    """Whose each row is, ``0 .. owners - 1`` in the order of the sorted values.

    Raises:
        ValueError: a row without an owner, or values that name nobody.
    """
    values = _values(rows, split, f"dataset.owner_column={column}", "have no owner; fill or drop them")
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _values(rows: Any, split: str, field: str, complaint: str) -> npt.NDArray[Any]:
    """A column of whole numbers, truth values or text as a NumPy array without gaps."""
    column = field.split("=", 1)[1]
    values: pa.ChunkedArray = rows.select_columns([column]).with_format("arrow")[:][column]
    feature = rows.features[column]
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    kind = values.type
    if pa.types.is_null(kind):
        raise ValueError(f"{field}: {listed(np.ones(len(values), bool))} of split {split} {complaint}")
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    number = (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )
    if not (text or number) or type(feature).__name__ == "Json":
        told = "values of several kinds" if type(feature).__name__ == "Json" else str(kind)
        raise ValueError(f"{field} must hold integers or strings, one per row (split {split} has {told})")
    if pa.types.is_decimal(kind) or pa.types.is_float16(kind):
        values = values.cast(pa.float64())
    missing = pc.is_null(values, nan_is_null=True).to_numpy().astype(bool)
    if type(feature).__name__ == "ClassLabel":
        missing |= pc.fill_null(pc.equal(values, -1), False).to_numpy()  # how the hub marks labels that are secret
    if missing.any():
        raise ValueError(f"{field}: {listed(missing)} of split {split} {complaint}")
    if text:
        return np.array(values.to_pylist(), dtype=str)
    plain = values.to_numpy()
    if plain.dtype.kind == "f":
        broken = plain != np.floor(plain)
        broken |= ~np.isfinite(plain)
        if broken.any():
            remedy = "must hold integers or strings, one per row; set task=regression, or put numbers in groups"
            raise ValueError(f"{field} {remedy}: a fraction in {listed(broken)} of split {split}")
    return plain
