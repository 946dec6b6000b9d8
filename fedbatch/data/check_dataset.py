"""What a data set of anybody's making must be: each array checked, and converted where that is safe."""

from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbatch.core.layout import Layout
from fedbatch.data import check_inputs
from fedbatch.data.dataset import Dataset
from fedbatch.data.label_rules import CLASSES, LabelRule
from fedbatch.data.pack import pack, padded_labels
from fedbatch.data.rows import failing, listed

Array = npt.NDArray[Any]


def checked(dataset: Any, rule: LabelRule = CLASSES) -> Dataset:
    """The data set with inputs of float32, or int64 tokens, and labels as ``rule`` has them, all in range; see Dataset.

    Inputs of any real type become float32 as they are: nothing is rescaled. Integers of 64 bits are tokens, as are
    others where each position has a label. Classes may be whole numbers of any type, also as a column
    ``(examples, 1)``. Arrays that are right already are not copied.

    Raises:
        ValueError: what is wrong, in which array and rows, and what to do.
    """
    absent = [each.name for each in fields(Dataset) if each.default is MISSING and not hasattr(dataset, each.name)]
    if absent:
        wanted = "a fedbatch.data.dataset.Dataset(name, train_x, train_y, test_x, test_y, num_classes)"
        raise ValueError(f"dataset: the target returned a {type(dataset).__name__}; it must return {wanted}")
    given, layout = one_array(dataset, rule)
    mapped, scale = getattr(dataset, "mapped", False), getattr(dataset, "scale", None)
    stays = {"train_x"} if mapped else set()
    raw = {name: values if name in stays else _array(name, values) for name, values in given.items()}
    _check_shapes(raw)
    num_classes = rule.num_classes(getattr(dataset, "num_classes", None))
    per_position = rule.has_positions and raw["train_y"].ndim == 2 and raw["train_y"].shape[1] > 1
    x = [raw["train_x"], raw["test_x"]]
    if layout is None:
        tokens = check_inputs.are_tokens(x[0], x[1], per_position)
        x = [
            check_inputs.mapped(name, raw[name], scale)
            if name in stays
            else check_inputs.inputs(name, raw[name], tokens)
            for name in ("train_x", "test_x")
        ]
    y = [rule.labels(name, raw[name], num_classes, x[0]) for name in ("train_y", "test_y")]
    rule.compare(*y)
    owner = getattr(dataset, "owner", None)
    if owner is not None:
        owner = _owner(_array("owner", owner), len(y[0]))
    return Dataset(
        str(dataset.name),
        x[0],
        y[0],
        x[1],
        y[1],
        num_classes,
        owner,
        layout=layout,
        mapped=mapped,
        scale=scale,
        meaning=getattr(dataset, "meaning", {}),
    )


def one_array(dataset: Any, rule: LabelRule) -> tuple[dict[str, Any], Layout | None]:
    """Inputs and labels of both splits by name, several arrays in one and sequences padded, and what lies where.

    Raises:
        ValueError: inputs of which that cannot be made.
    """
    y: Sequence[Any] = (dataset.train_y, dataset.test_y)
    if rule.has_positions:
        y = padded_labels(y)
    x: list[Any] = [dataset.train_x, dataset.test_x]
    layout = getattr(dataset, "layout", None)
    if layout is None and (packed := pack(x, [*map(len, y)], getattr(dataset, "pad", 0))) is not None:
        x, layout = [*packed[0]], packed[1]
    return {"train_x": x[0], "train_y": y[0], "test_x": x[1], "test_y": y[1]}, layout


def _check_shapes(raw: dict[str, Array]) -> None:
    for name, array in raw.items():
        if array.ndim == 0 or not array.size:
            raise ValueError(f"dataset: {name} holds no example (shape {array.shape})")
    for split in ("train", "test"):
        x, y = len(raw[f"{split}_x"]), len(raw[f"{split}_y"])
        if x != y:
            raise ValueError(f"dataset: {split}_x has {x:,} examples and {split}_y {y:,}; they must agree")
    for name in ("x", "y"):
        train, test = (raw[f"{split}_{name}"].shape[1:] for split in ("train", "test"))
        if train != test:
            raise ValueError(
                f"dataset: an example of train_{name} has shape {train} and of test_{name} {test}; they must agree"
            )


def _array(name: str, value: Any) -> Array:
    """A plain array of numbers, or of strings, in memory that can be written to, without a copy where it is one."""
    if np.ma.isMaskedArray(value) and np.ma.getmaskarray(value).any():
        raise ValueError(f"dataset: {name} is masked in places; fill or drop what is missing")
    try:
        array = np.asarray(value)
    except Exception as error:  # tensors on a device, lists of several lengths: each raises its own
        told = " ".join(str(error).split())
        raise ValueError(f"dataset: {name} ({type(value).__name__}) cannot become a NumPy array: {told}") from error
    if array.dtype.kind not in "biufUS":
        told = f"{type(value).__name__} of type {array.dtype}"
        remedy = "it must be an array of numbers (toarray() of a sparse matrix, to_numpy(float) of a table)"
        raise ValueError(f"dataset: {name} is a {told}; {remedy}")
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("=")) if array.ndim else array
    return array if array.flags.writeable else array.copy()


def _owner(owner: Array, examples: int) -> npt.NDArray[np.int64]:
    if owner.shape != (examples,):
        raise ValueError(f"dataset: owner has shape {owner.shape}; it names whose each of the {examples:,} examples is")
    if owner.dtype.kind == "f":
        broken = failing(owner, lambda block: np.isfinite(block) & (block == np.floor(block)))
        if broken.any():
            raise ValueError(f"dataset: owner is no whole number in {listed(broken)}; number the owners")
    if owner.dtype.kind in "US":
        return np.unique(owner, return_inverse=True)[1].astype(np.int64)
    return owner.astype(np.int64, copy=False)
