"""Tables that a run leaves beside its record: classes, pairs of classes, and clients."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbatch.core.files import write_atomically
from fedbatch.core.scores import Scoring

CONFUSION, CLASSES, CLIENTS = "confusion.parquet", "classes.parquet", "clients.parquet"
Ints = npt.NDArray[np.int64]


def write_classes(folder: Path, counts: Ints) -> None:
    """Write the pairs of classes and, by class, recall and precision, null where a class is not there.

    Args:
        folder: of the run.
        counts: (C, C) examples, or positions or pixels, by class and by predicted class.
    """
    classes = len(counts)
    label, predicted = (each.ravel() for each in np.indices(counts.shape))
    _write(folder / CONFUSION, {"label": label, "predicted": predicted, "count": counts.ravel()})
    right, there, said = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    shares = {"recall": _shares(right, there), "precision": _shares(right, said)}
    _write(folder / CLASSES, {"label": np.arange(classes), "count": there, **shares})


def write_clients(folder: Path, table: Mapping[str, npt.NDArray[Any]], scoring: Scoring) -> None:
    """Write the clients' scores, the worst client first; those without a score come last.

    Args:
        folder: of the run.
        table: columns ``client``, ``examples``, ``loss`` and the scores by their names.
        scoring: says which is *the* score, and which way it is better.
    """
    score = table[scoring.score]
    order = np.argsort(-score if scoring.better == "lower" else score, kind="stable")
    _write(folder / CLIENTS, {name: values[order] for name, values in table.items()})


def _shares(part: Ints, whole: Ints) -> list[float | None]:
    return [float(p / w) if w else None for p, w in zip(part, whole, strict=True)]


def _write(target: Path, columns: Mapping[str, Any]) -> None:
    import polars as pl

    content = io.BytesIO()
    pl.DataFrame(dict(columns)).write_parquet(content)
    write_atomically(target, content.getvalue())
