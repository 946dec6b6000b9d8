"""The tables that a run leaves after its last round, as the plain values that a page shows."""

from pathlib import Path
from typing import Any

from fedbatch.results.views import CLASSES, CLIENTS, CONFUSION

MOST_CLASSES, WORST = 60, 20
"""Classes of a picture of all pairs, and clients that are listed."""


def views_of(folder: Path, score: str) -> dict[str, Any]:
    """What there is of ``recall`` by class, ``confusion`` (C, C) and the ``worst`` clients with their ``score``.

    A table that cannot be read, or that is of something else, is left out: the folder may be anybody's.
    """
    found: dict[str, Any] = {}
    if not any((folder / name).exists() for name in (CLASSES, CLIENTS, CONFUSION)):
        return found
    import polars as pl

    def read(name: str, *columns: str) -> list[list[Any]]:
        path = folder / name
        try:
            table = pl.read_parquet(path, columns=list(columns)) if path.exists() else pl.DataFrame()
            kept = [table[column].cast(pl.Float64).to_list() for column in columns] if len(table) else []
        except (OSError, pl.exceptions.PolarsError):
            return []
        return kept

    if by_class := read(CLASSES, "recall"):
        found["recall"] = by_class[0]
    if counted := read(CONFUSION, "count"):
        size = round(len(counted[0]) ** 0.5)
        if size**2 == len(counted[0]) and size <= MOST_CLASSES:
            found["confusion"] = [counted[0][row * size : (row + 1) * size] for row in range(size)]
    if clients := read(CLIENTS, "client", "examples", score):
        found["worst"] = [list(row[:WORST]) for row in clients]
    return found
