"""Any image, text or tabular set of the Hugging Face hub, or of a local folder or file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbatch.data import columns, images, tabular, texts
from fedbatch.data import source as sources
from fedbatch.data.bundled import held_out
from fedbatch.data.dataset import Dataset
from fedbatch.data.labels import labels, numbers, owners
from fedbatch.data.meaning import NUMBERS, TEXTS, of_values
from fedbatch.data.standardise import standardise

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def hugging_face(
    source: str,
    *,
    input_column: str | Sequence[str],
    label_column: str | Sequence[str],
    owner_column: str | None = None,
    train_split: str = "train",
    test_split: str | None = "test",
    test_fraction: float = 0.2,
    text_features: int = 1024,
    missing: str = "refuse",
    label_kind: str = "classes",
) -> Dataset:
    """Load a data set through ``datasets``.

    Images become ``(C, H, W)``, standardised per channel at the depth that they were saved with. One column of texts
    becomes ``(text_features,)``, hashed counts of unit length. Other columns become ``(width,)``: numbers, truth
    values, dates and vectors of numbers are standardised, a text among several columns is a category and becomes 0
    and 1. Everything is fitted on the training split, in float64, and is float32 only then. See docs/own.md.

    Args:
        source: a name on the hub, a folder (of ``save_to_disk``, csv, parquet, json or images), or one file.
        input_column: a column of images, texts, numbers or vectors, or several of numbers, vectors or categories.
        label_column: integers, truth values or strings; the classes are the sorted distinct values of all splits used.
            Where the task predicts numbers: a column of numbers or vectors, or several of them.
        owner_column: whose example it is; integers or strings.
        train_split: name of the split to train on.
        test_split: name of the split to test on. Where the source has one split only, or with None, a
            stratified ``test_fraction`` of the training split is held out, always the same.
        test_fraction: between 0 and 1.
        text_features: length of the vector that stands for a text, at least 1.
        missing: ``refuse`` rows without a value, or ``impute`` it: the median of a number, with a column that says
            where; a category of its own. A text without a word is allowed, and counted in one line.
        label_kind: "classes" or "numbers", as the task has it.

    Raises:
        ConnectionError: not a local path, not in the local cache, and the hub cannot be reached.
        ValueError: the source cannot be read, lacks a column or split, or has values that are not of these kinds.
    """
    inputs = [input_column] if isinstance(input_column, str) else list(input_column)
    targets = [label_column] if isinstance(label_column, str) else list(label_column)
    _check_request(inputs, targets, label_kind, test_fraction, text_features, missing)
    as_numbers, as_names = (targets, []) if label_kind == "numbers" else ([], targets)
    names = [*as_names, owner_column] if owner_column else as_names
    splits = sources.load(source, train_split, [*inputs, *as_numbers], names)
    wanted = [train_split] if test_split is None or len(splits) == 1 else [train_split, test_split]
    sources.check_names(source, splits, wanted, [*inputs, *targets])
    used = {split: splits[split] for split in wanted}

    fit = _read(used, inputs, missing == "impute")
    y: list[npt.NDArray[Any]]
    if label_kind == "numbers":
        y, num_classes, meaning = [*numbers(used, targets)], None, dict.fromkeys(targets, NUMBERS)
    else:
        found, classes = labels(used, targets[0])
        y, num_classes = [*found], len(classes)
        meaning = {targets[0]: of_values(classes, "classes")}
    owner = None
    if owner_column:
        sources.check_names(source, splits, [train_split], [owner_column])
        owner = owners(splits[train_split], train_split, owner_column)
    strata: npt.NDArray[np.int64] = y[0] if num_classes else np.zeros(len(y[0]), np.int64)
    test = held_out(strata, test_fraction) if len(wanted) == 1 else None
    if test is not None:
        if not test.any() or test.all():
            which, change = ("training", "lower") if test.any() else ("test", "raise")
            raise ValueError(
                f"dataset: no {which} example in {source}; {change} dataset.test_fraction (is {test_fraction})"
            )
        y = [y[0][~test], y[0][test]]
        owner = owner[~test] if owner is not None else None
    x, read_as = fit(test, text_features)
    return Dataset(Path(source).stem, x[0], y[0], x[1], y[1], num_classes, owner, meaning=read_as | meaning)


def _check_request(
    inputs: list[str], targets: list[str], label_kind: str, test_fraction: float, text_features: int, missing: str
) -> None:
    if not 0 < test_fraction < 1:
        raise ValueError(f"dataset.test_fraction must be between 0 and 1 (got {test_fraction})")
    if text_features < 1:
        raise ValueError(f"dataset.text_features must be at least 1 (got {text_features})")
    if missing not in ("refuse", "impute"):
        raise ValueError(f"dataset.missing must be refuse or impute (got {missing})")
    if not inputs or len({*inputs}) < len(inputs):
        raise ValueError(f"dataset.input_column must name each column once (got {inputs})")
    if not targets or len({*targets}) < len(targets):
        raise ValueError(f"dataset.label_column must name each column once (got {targets})")
    if label_kind == "classes" and len(targets) > 1:
        raise ValueError(
            f"dataset.label_column must be one column of classes (got {targets}); for several set task=multi_label or "
            "task=regression"
        )
    for label in targets:
        if label in inputs:
            raise ValueError(f"dataset.input_column: {label} is the label_column, and would be all that a model needs")


def _read(
    used: dict[str, Any], names: list[str], impute: bool
) -> Callable[[Mask | None, int], tuple[list[Floats], dict[str, str]]]:
    """Read and check the columns; what is returned fits training and test inputs, given which rows are held out.

    It gives what they stand for, too.
    """
    features = next(iter(used.values())).features
    if pictures := [name for name in names if type(features[name]).__name__ == "Image"]:
        if len(names) > 1:
            raise ValueError(f"dataset.input_column={','.join(names)}: {pictures[0]} holds images; take it alone")
        pixels = images.unify([images.decode(rows, split, names[0]) for split, rows in used.items()], names[0])
        return lambda test, _: (standardise(*_divided(pixels, test)), {})
    read = [list(parts) for parts in zip(*(columns.read(used, name) for name in names), strict=True)]
    if len(names) == 1 and all(part[0].is_text for part in read):
        plain = [np.where(part[0].missing, "", part[0].values) for part in read]
        return lambda test, length: (
            texts.features([part.tolist() for part in _divided(plain, test)], names[0], length),
            {names[0]: TEXTS},
        )
    tabular.check(read, impute)
    return lambda test, _: (tabular.inputs(read, test), tabular.meaning(read, test))


def _divided(parts: list[npt.NDArray[Any]], test: Mask | None) -> list[npt.NDArray[Any]]:
    return parts if test is None else [parts[0][~test], parts[0][test]]
