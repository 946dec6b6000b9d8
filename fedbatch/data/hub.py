"""Any image, text or tabular classification set of the Hugging Face hub, or of a local folder or file."""

import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbatch.data.bundled import held_out
from fedbatch.data.dataset import Dataset

Floats = npt.NDArray[np.float32]

FORMATS = {".csv": "csv", ".parquet": "parquet", ".json": "json", ".jsonl": "json"}
NEED_NO_HUB = "dataset=fashion_mini, digits and breast_cancer need no hub, nor does a local folder as dataset.source"


def hugging_face(
    source: str,
    *,
    input_column: str | Sequence[str],
    label_column: str,
    owner_column: str | None = None,
    train_split: str = "train",
    test_split: str | None = "test",
    test_fraction: float = 0.2,
    text_features: int = 1024,
) -> Dataset:
    """Load a classification set through ``datasets``.

    Images become ``(C, H, W)``, standardised per channel; numbers become ``(columns,)``, standardised per
    column; both by the training split. Texts become ``(text_features,)``, hashed word counts of unit length.

    Args:
        source: a name on the hub, a folder (of ``save_to_disk``, csv, parquet, json or images), or one file.
        input_column: a column of images, texts, numbers or vectors, or several columns of numbers.
        label_column: integers or strings; the classes are the sorted distinct values of all splits used.
        owner_column: whose example it is; any values.
        train_split: name of the split to train on.
        test_split: name of the split to test on. Where the source has one split only, or with None, a
            stratified ``test_fraction`` of the training split is held out, always the same.
        test_fraction: between 0 and 1.
        text_features: length of the vector that stands for a text.

    Raises:
        ConnectionError: not a local path, not in the local cache, and the hub cannot be reached.
        ValueError: the source cannot be read, lacks a column or split, or has a column of another kind.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"dataset.test_fraction must be between 0 and 1 (got {test_fraction})")
    splits = _load(source, train_split)
    wanted = [train_split] if test_split is None or len(splits) == 1 else [train_split, test_split]
    inputs = [input_column] if isinstance(input_column, str) else list(input_column)
    _check_names(source, splits, wanted, [*inputs, label_column])

    x = [_inputs(splits[split], inputs, text_features) for split in wanted]
    labels = [_labels(splits[split], split, label_column) for split in wanted]
    classes = np.unique(np.concatenate(labels))
    y = [np.searchsorted(classes, values).astype(np.int64) for values in labels]
    owner = None
    if owner_column:
        _check_names(source, splits, [train_split], [owner_column])
        owner = np.unique(splits[train_split][owner_column][:], return_inverse=True)[1].astype(np.int64)
    if len(wanted) == 1:
        test = held_out(y[0], test_fraction)
        x, y = [x[0][~test], x[0][test]], [y[0][~test], y[0][test]]
        owner = owner[~test] if owner is not None else None
    if not len(y[1]):
        raise ValueError(f"dataset: no test example in {source}; raise dataset.test_fraction (is {test_fraction})")
    if not _is_text(splits[train_split], inputs):
        x = _standardise(*x)
    return Dataset(Path(source).stem, x[0], y[0], x[1], y[1], len(classes), owner)


def _load(source: str, only_split: str) -> dict[str, Any]:
    path = Path(source)
    if not path.exists():
        _work_offline_if_unreachable()
    import datasets  # a second to import

    try:
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            loaded = datasets.load_from_disk(source)
        elif path.is_file():
            if path.suffix not in FORMATS:
                raise ValueError(f"a {path.suffix or 'nameless'} file is none of {', '.join(FORMATS)}")
            loaded = datasets.load_dataset(FORMATS[path.suffix], data_files=source)
        else:
            loaded = datasets.load_dataset(source)
    except ConnectionError as error:
        reason = "is no local file or folder, and the hub cannot be reached"
        raise ConnectionError(f"dataset.source={source} {reason}; {NEED_NO_HUB}") from error
    except Exception as error:  # the readers of csv, parquet, json and images each raise their own
        raise ValueError(f"dataset.source={source} cannot be read: {' '.join(str(error).split())}") from error
    return loaded if isinstance(loaded, datasets.DatasetDict) else {only_split: loaded}


def _check_names(source: str, splits: dict[str, Any], wanted: list[str], columns: list[str]) -> None:
    for split in wanted:
        if split not in splits:
            remedy = "set dataset.train_split and dataset.test_split (null: hold out dataset.test_fraction)"
            raise ValueError(f"dataset: {source} has no split {split}, only {', '.join(splits)}; {remedy}")
        known = splits[split].column_names
        for column in columns:
            if column not in known:
                remedy = "set dataset.input_column, dataset.label_column, dataset.owner_column"
                raise ValueError(f"dataset: {source} has no column {column}, only {', '.join(known)}; {remedy}")


def _work_offline_if_unreachable() -> None:
    # The hub's client retries for 23 seconds and reads this variable when first imported, so ask beforehand.
    # Working offline it still finds what it has downloaded before.
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=3).close()
    except urllib.error.HTTPError as error:
        error.close()  # it answered, so it is there
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"


def _inputs(split: Any, columns: list[str], text_features: int) -> Floats:
    if type(split.features[columns[0]]).__name__ == "Image":
        return _images(split[columns[0]], columns[0])
    if _is_text(split, columns):
        from sklearn.feature_extraction.text import HashingVectorizer

        texts = [text or "" for text in split[columns[0]]]
        return HashingVectorizer(n_features=text_features, dtype=np.float32).transform(texts).toarray()
    try:
        table = [np.array(split[column][:], np.float32).reshape(len(split), -1) for column in columns]
    except (TypeError, ValueError) as error:
        remedy = "it must hold an image, text, number or fixed-length vector per row; several columns, numbers"
        raise ValueError(f"dataset.input_column={','.join(columns)}: {remedy} ({error})") from error
    x = np.concatenate(table, axis=1)
    if missing := np.count_nonzero(~np.isfinite(x).all(axis=1)):
        raise ValueError(f"dataset.input_column={','.join(columns)}: {missing} rows lack a number; fill or drop them")
    return x


def _is_text(split: Any, columns: list[str]) -> bool:
    return len(columns) == 1 and getattr(split.features[columns[0]], "dtype", None) in (
        "string",
        "large_string",
    )


def _images(images: Any, column: str) -> Floats:
    arrays = [np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB")) for image in images]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise ValueError(f"dataset.input_column={column}: images of {len(shapes)} shapes; resize them to one")
    x: Floats = np.divide(np.stack(arrays), 255, dtype=np.float32)
    return x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2)  # (N, H, W) or (N, H, W, 3) -> (N, C, H, W)


def _labels(split: Any, name: str, column: str) -> npt.NDArray[Any]:
    values = split[column][:]
    hidden = sum(value is None for value in values)
    if type(split.features[column]).__name__ == "ClassLabel":
        hidden += sum(value == -1 for value in values)  # how the hub marks a test set whose labels are secret
    if hidden:
        raise ValueError(f"dataset.label_column={column}: {hidden} rows of split {name} have no label; drop them")
    labels = np.array(values)
    if labels.ndim != 1 or labels.dtype.kind not in "biuUS":
        raise ValueError(f"dataset.label_column={column} must hold integers or strings, one per row")
    return labels


def _standardise(train: Floats, test: Floats) -> list[Floats]:
    axes = tuple(axis for axis in range(train.ndim) if axis != 1)
    mean = train.mean(axes, keepdims=True, dtype=np.float64).astype(np.float32)
    std = train.std(axes, keepdims=True, dtype=np.float64).astype(np.float32)
    std[std == 0] = 1  # a constant column stays constant
    return [(x - mean) / std for x in (train, test)]
