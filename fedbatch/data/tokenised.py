"""Texts of a table as tokens of a tokenizer in a local folder, for models of Hugging Face transformers."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbatch.data import columns
from fedbatch.data import source as sources
from fedbatch.data.bundled import held_out
from fedbatch.data.check_labels import NO_LABEL
from fedbatch.data.dataset import Dataset
from fedbatch.data.labels import labels, owners
from fedbatch.data.meaning import of_values
from fedbatch.data.rows import listed

Sequences = list[npt.NDArray[np.int64]]


def hugging_face_text(
    source: str,
    *,
    tokenizer: str,
    max_length: int = 128,
    input_column: str = "text",
    label_column: str | None = "label",
    owner_column: str | None = None,
    train_split: str = "train",
    test_split: str | None = "test",
    test_fraction: float = 0.2,
) -> Dataset:
    """Load a column of texts through ``datasets``, and give ``input_ids`` of several lengths.

    Args:
        source: a name on the hub, a folder (of ``save_to_disk``, csv, parquet or json), or one file.
        tokenizer: a folder with a tokenizer, as ``save_pretrained`` writes it.
        max_length: tokens that are kept of a text, at least 2.
        input_column: texts.
        label_column: classes; None to predict the next token at each position.
        owner_column: whose example it is; integers or strings.
        train_split: name of the split to train on.
        test_split: name of the split to test on; where there is one split only, or with None, ``test_fraction`` of the
            training split is held out.
        test_fraction: between 0 and 1.

    Raises:
        ConnectionError: not a local path, not in the local cache, and the hub cannot be reached.
        ImportError: transformers is not there.
        ValueError: the source or the tokenizer cannot be read, lacks a column or split, or texts have no tokens.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"dataset.test_fraction must be between 0 and 1 (got {test_fraction})")
    names = [name for name in (label_column, owner_column) if name is not None]
    splits = sources.load(source, train_split, [input_column], names)
    wanted = [train_split] if test_split is None or len(splits) == 1 else [train_split, test_split]
    sources.check_names(source, splits, wanted, [input_column, *([label_column] if label_column else [])])
    used = {split: splits[split] for split in wanted}
    told = _tokenizer(tokenizer)
    x = [
        _tokens(column, told, max_length, at_least=2 - bool(label_column))
        for column in columns.read(used, input_column)
    ]
    meaning = {"dataset.tokenizer": of_values(sorted(told.get_vocab().items()), "tokens")}
    y: list[Any]
    if label_column is None:
        y, num_classes = [[_next(row) for row in rows] for rows in x], len(told)
    else:
        found, classes = labels(used, label_column)
        y, num_classes, meaning[label_column] = [*found], len(classes), of_values(classes, "classes")
    owner = None
    if owner_column:
        sources.check_names(source, splits, [train_split], [owner_column])
        owner = owners(splits[train_split], train_split, owner_column)
    if len(wanted) == 1:
        test = held_out(y[0] if label_column else np.zeros(len(x[0]), np.int64), test_fraction)
        x, y = ([_taken(each[0], ~test), _taken(each[0], test)] for each in (x, y))
        owner = None if owner is None else owner[~test]
    pad = 0 if told.pad_token_id is None else told.pad_token_id
    inputs: list[Any] = [{"input_ids": rows} for rows in x]
    return Dataset(Path(source).stem, inputs[0], y[0], inputs[1], y[1], num_classes, owner, pad, meaning=meaning)


def _tokenizer(folder: str) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ImportError('dataset.tokenizer: needs transformers; pip install "fedbatch[hf]"') from error
    if not Path(folder).is_dir():
        raise ValueError(f"dataset.tokenizer={folder} is no folder; give one that save_pretrained has written")
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _tokens(column: columns.Column, tokenizer: Any, max_length: int, at_least: int) -> Sequences:
    """The tokens of each text.

    Raises:
        ValueError: a column without texts, or texts with fewer tokens than ``at_least``.
    """
    field = f"dataset.input_column={column.name}"
    if not column.is_text:
        raise ValueError(f"{field} holds numbers in split {column.split}; take dataset=hugging_face")
    texts = np.where(column.missing, "", column.values).tolist()
    rows = [np.array(ids, np.int64) for ids in tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]]
    short = np.array([len(row) < at_least for row in rows])
    if short.any():
        raise ValueError(
            f"{field}: texts with fewer tokens than {at_least} in {listed(short)} of split {column.split}; drop them"
        )
    return rows


def _next(row: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The token after each position; none after the last."""
    return np.append(row[1:], NO_LABEL)


def _taken(values: Any, rows: npt.NDArray[np.bool_]) -> Any:
    return values[rows] if isinstance(values, np.ndarray) else [values[i] for i in np.flatnonzero(rows)]
