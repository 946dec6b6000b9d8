"""Inputs from columns: numbers standardised, categories one-hot, missing values refused or filled."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fedbatch.data import columns
from fedbatch.data.columns import Column
from fedbatch.data.meaning import NUMBERS, of_values
from fedbatch.data.rows import listed
from fedbatch.data.standardise import standardise

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

MOST_CATEGORIES = 1000


def check(parts: list[list[Column]], impute: bool) -> None:
    """Refuse columns that cannot be inputs, those of each split in the same order.

    Raises:
        ValueError: missing values that are not to be imputed, or a column of another kind in another split.
    """
    field = _field(parts)
    for split in zip(*parts, strict=True):
        for part in split:
            _check(part, split[0], field, impute)


def inputs(parts: list[list[Column]], held_out: Mask | None) -> list[Floats]:
    """Training and test inputs, ``(examples, width)``, from columns of one or two splits side by side.

    Numbers are standardised. A text is a category: one column of 0 and 1 for each value of the training examples,
    all 0 for another value. Filled numbers are the median, followed by a column of 0 and 1 that says which were
    filled; a missing category is one of its own. Everything is fitted on the training examples alone.

    Args:
        parts: the columns of each split, in the same order.
        held_out: which rows of the only split are the test examples; None where there are two splits.

    Raises:
        ValueError: too many categories, or a number without any value to train on.
    """
    field, by_column = _field(parts), []
    for split in zip(*parts, strict=True):
        column = list(split)
        if column[0].is_text:
            by_column.append(_one_hot(field, column[0].name, _divided([_texts(part) for part in column], held_out)))
        else:
            by_column.append(_scaled(field, column[0].name, _divided(columns.as_float64(column), held_out)))
    return [np.concatenate(each, axis=1) for each in zip(*by_column, strict=True)]


def meaning(parts: list[list[Column]], held_out: Mask | None) -> dict[str, str]:
    """What the inputs of each column stand for, by its name; arguments as in `inputs`."""
    found = {}
    for split in zip(*parts, strict=True):
        column = list(split)
        if column[0].is_text:
            train = _divided([_texts(part) for part in column], held_out)[0]
            found[column[0].name] = of_values(sorted({*train[:, 0]}), "categories")
        else:
            found[column[0].name] = NUMBERS
    return found


def _field(parts: list[list[Column]]) -> str:
    return f"dataset.input_column={','.join(part.name for part in parts[0])}"


def _check(part: Column, first: Column, field: str, impute: bool) -> None:
    if part.is_text != first.is_text:
        raise ValueError(f"{field}: {part.name} holds text in one split and numbers in another; write them alike")
    if part.values.shape[1:] != first.values.shape[1:]:
        raise ValueError(
            f"{field}: {part.name} holds vectors of {first.values.shape[1]} and of {part.values.shape[1]} numbers"
        )
    if part.missing.all():
        raise ValueError(f"{field}: {part.name} is empty in split {part.split}; leave it out")
    if part.rows_missing.any() and not impute:
        remedy = "fill or drop them, or set dataset.missing=impute"
        raise ValueError(
            f"{field}: no value of {part.name} in {listed(part.rows_missing)} of split {part.split}; {remedy}"
        )


def _divided(values: list[npt.NDArray[Any]], held_out: Mask | None) -> list[npt.NDArray[Any]]:
    return values if held_out is None else [values[0][~held_out], values[0][held_out]]


def _texts(part: Column) -> npt.NDArray[np.object_]:
    return np.where(part.missing, "missing", part.values)[:, None]


def _one_hot(field: str, name: str, texts: list[npt.NDArray[Any]]) -> list[Floats]:
    from sklearn.preprocessing import OneHotEncoder

    count, rows = len({*texts[0][:, 0]}), len(texts[0])
    if count > min(MOST_CATEGORIES, max(2, rows / 2)):
        told = f"{count:,} different texts in {rows:,} training rows, neither numbers nor categories"
        raise ValueError(f"{field}: {name} holds {told}; leave it out, or take it alone, as text")
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32).fit(texts[0])
    return [encoder.transform(each) for each in texts]


def _scaled(field: str, name: str, numbers: list[npt.NDArray[Any]]) -> list[Floats]:
    from sklearn.impute import MissingIndicator, SimpleImputer

    filled: list[Floats] = []
    if any(np.isnan(each).any() for each in numbers):
        if np.isnan(numbers[0]).all(axis=0).any():
            raise ValueError(f"{field}: {name} has no value in any training row; leave it out")
        imputer = SimpleImputer(strategy="median").fit(numbers[0])
        indicator = MissingIndicator(error_on_new=False).fit(numbers[0])
        filled = [indicator.transform(each).astype(np.float32) for each in numbers]
        numbers = [imputer.transform(each) for each in numbers]
    scaled = standardise(*numbers)
    for split, x in zip(("training", "test"), scaled, strict=True):
        broken = np.asarray(~np.isfinite(x).all(axis=1))
        if broken.any():
            remedy = "correct the value or leave the column out"
            raise ValueError(
                f"{field}: {name} is too large beside the training values in {split} {listed(broken)}; {remedy}"
            )
    return [np.concatenate(each, axis=1) for each in zip(scaled, filled, strict=True)] if filled else scaled
