"""From a name on the hub, a folder or a file to tables, one a split."""

import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from fedbatch.data import csv_file

FORMATS = {".csv": "csv", ".parquet": "parquet", ".json": "json", ".jsonl": "json", ".tsv": "csv"}
NEED_NO_HUB = "dataset=fashion_mini, digits and breast_cancer need no hub, nor does a local folder as dataset.source"


def load(source: str, only_split: str, inputs: list[str], names: list[str]) -> dict[str, Any]:
    """The splits of ``source`` by name, each a ``datasets.Dataset``.

    Args:
        source: a name on the hub, a folder (of ``save_to_disk``, csv, parquet, json or images), or one file.
        only_split: name of the split where the source is a single table that was saved alone.
        inputs: columns of inputs that will be read; a file of comma-separated values is understood by them.
        names: columns of labels and owners that will be read.

    Raises:
        ConnectionError: not a local path, not in the local cache, and the hub cannot be reached.
        ValueError: the source cannot be read.
    """
    if not Path(source).exists():
        _work_offline_if_unreachable()
    import datasets  # a second to import

    level = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it logs it raises too, and that is told below
    try:
        splits = _read(source, inputs, names)
        return dict(splits) if isinstance(splits, dict) else {only_split: splits}
    except ConnectionError as error:
        reason = "is no local file or folder, and the hub cannot be reached"
        raise ConnectionError(f"dataset.source={source} {reason}; {NEED_NO_HUB}") from error
    except Exception as error:  # the readers of csv, parquet, json and images each raise their own
        wrapped = isinstance(error, datasets.exceptions.DatasetGenerationError)  # "an error occurred"
        cause = error.__cause__ if wrapped and error.__cause__ else error
        told = " ".join(str(cause).split()) or type(cause).__name__
        raise ValueError(f"dataset.source={source} cannot be read: {told}") from error
    finally:
        datasets.logging.set_verbosity(level)


def _read(source: str, inputs: list[str], names: list[str]) -> Any:
    """The splits by name, or the only one."""
    import datasets
    from datasets.packaged_modules.csv.csv import CsvConfig

    path = Path(source)
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return datasets.load_from_disk(source)
    request: dict[str, Any] = {"path": source}
    if path.is_file():
        if path.suffix not in FORMATS:
            raise ValueError(f"a {path.suffix or 'nameless'} file is none of {', '.join(FORMATS)}")
        if not path.stat().st_size:
            raise ValueError("the file is empty")
        request = {"path": FORMATS[path.suffix], "data_files": source}
    config = datasets.load_dataset_builder(**request).config
    if not isinstance(config, CsvConfig):
        return datasets.load_dataset(**request)
    if path.exists():
        wanted = [*inputs, *names]
        splits = {str(split): csv_file.read(files, wanted) for split, files in config.data_files.items()}
    else:
        splits = datasets.load_dataset(**request, keep_default_na=False, na_values=[""])
    return csv_file.typed(splits, inputs, names)


def check_names(source: str, splits: dict[str, Any], wanted: list[str], columns: list[str]) -> None:
    """Refuse a split that is not there, or lacks one of ``columns``, or has no row.

    Raises:
        ValueError: with the names that are there.
    """
    for split in wanted:
        if split not in splits:
            remedy = "set dataset.train_split and dataset.test_split (null: hold out dataset.test_fraction)"
            raise ValueError(f"dataset: {source} has no split {split}, only {', '.join(splits)}; {remedy}")
        known = splits[split].column_names
        for column in columns:
            if column not in known:
                remedy = "set dataset.input_column, dataset.label_column, dataset.owner_column"
                if sum(map(_is_number, known)) * 2 >= len(known):
                    remedy = "the first line of the file must hold the names of its columns"
                elif column in [name.strip() for name in known]:
                    remedy = f"take the spaces away around {column} in the file"
                raise ValueError(f"dataset: {source} has no column {column}, only {', '.join(known)}; {remedy}")
        if not len(splits[split]):
            raise ValueError(f"dataset: split {split} of {source} has no rows; set dataset.train_split or test_split")


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


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
