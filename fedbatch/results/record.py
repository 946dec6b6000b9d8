"""The record: one JSON object a round in ``rounds.jsonl``, read back row by row, and as Parquet in the end."""

import hashlib
import io
import logging
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import count as numbers_from
from itertools import islice
from pathlib import Path
from typing import Any

from fedbatch.core.errors import ConfigError
from fedbatch.core.files import from_json, to_json, write_atomically

FILE = "rounds.jsonl"
SEAL = re.compile(rb', "seal": "([0-9a-f]{8})"\}\s*$')
CHUNK = 1000
Row = dict[str, Any]

log = logging.getLogger("fedbatch")


def sealed(row: Mapping[str, Any], run: str) -> str:
    """The line of a row, with a hash of run and row by which another run's lines and changed ones are found."""
    line = to_json(row)
    return f'{line[:-1]}, "seal": "{_seal(line.encode(), run)}"}}'


def _seal(line: bytes, run: str) -> str:
    return hashlib.blake2b(run.encode() + line, digest_size=4).hexdigest()


def _is_of(line: bytes, run: str) -> bool:
    """Whether a line was written as it is by this run; lines of before there were seals are taken to be."""
    found = SEAL.search(line)
    return not run or found is None or found[1].decode() == _seal(line[: found.start()] + b"}", run)


def each_row(path: Path) -> Iterator[Row]:
    """The rows of a record, one in memory at a time; lines that cannot be read are left out, and said to be.

    A last line that a kill cut short is no row and not worth a word.
    """
    damaged = []
    for number, line, whole in _lines(path):
        row = _parsed(line)
        if row is not None:
            yield row
        elif whole and line.strip():
            damaged.append(number)
    if damaged:
        tell_once(f"{path}: unreadable lines, left out: {ranges(damaged)}")


def read_rows(path: Path) -> list[Row]:
    """All rows of a record; see `each_row`."""
    return list(each_row(path))


def sample(path: Path, most: int) -> list[Row]:
    """The rows to draw of a record; see `thinned`."""
    if len(rows := list(islice(each_row(path), most + 1))) <= most:
        return rows
    del rows
    shared = {bool(tested): {"test_loss": 0.0 if tested else math.nan, "switch": ""} for tested in (0, 1)}
    marks = [row if row["switch"] else shared[row["test_loss"] == row["test_loss"]] for row in each_row(path)]
    kept = set(thinned(marks, most))
    return [row for i, row in enumerate(each_row(path)) if i in kept]


def thinned(rows: Sequence[Mapping[str, Any]], most: int) -> list[int]:
    """Which rounds to show: all, or ends, changes of phase, and an even choice of the evaluated and of all rounds.

    >>> rounds = [{"test_loss": 1.0, "switch": "why" if i == 5 else ""} for i in range(100)]
    >>> thinned(rounds, 4)
    [0, 5, 50, 99]
    """
    if len(rows) <= most:
        return list(range(len(rows)))
    tested = [i for i, row in enumerate(rows) if row["test_loss"] == row["test_loss"]]
    changed = [i for i, row in enumerate(rows) if row["switch"]][:most]
    even = [*_every(range(len(rows)), most // 2), *_every(tested, most // 2)]
    return sorted({0, len(rows) - 1, *changed, *even})


def _every(items: Sequence[int], count: int) -> Sequence[int]:
    return items[:: max(1, -(-len(items) // max(1, count)))]


@lru_cache(maxsize=256)
def tell_once(text: str) -> None:
    """One line for a file that is read several times."""
    log.warning("%s", text)


def last_rows(path: Path) -> tuple[Row | None, Row | None]:
    """The last row, and the last of a round that was evaluated."""
    last = tested = None
    for row in each_row(path):
        last, tested = row, row if row["test_loss"] == row["test_loss"] else tested
    return last, tested


def reconcile(path: Path, rounds: int, totals: Mapping[str, Any], run: str = "") -> list[int]:
    """Make the record that of the first ``rounds`` rounds, which a checkpoint has behind it; the others are done again.

    What is wrong with it is said in one line, and the file as it was is kept beside it.

    Args:
        path: of the record.
        rounds: of the checkpoint.
        totals: columns of the last of them, as the checkpoint has them.
        run: id of the run; lines that are not as it wrote them are left out.

    Returns:
        The rounds that are missing.

    Raises:
        ConfigError: the record is of another run.
    """
    where: dict[int, int] = {}  # round -> offset of its last line
    damaged, foreign, twice, offset = [], [], [], 0
    for number, line, whole in _lines(path):
        row, start, offset = _parsed(line), offset, offset + len(line)
        if row is None:
            damaged += [number] if whole and line.strip() else []
        elif not _is_of(line, run):
            foreign.append(number)
        elif (round_ := row["round"]) < rounds:
            twice += [round_] if round_ in where else []
            where[round_] = start
            if round_ == rounds - 1 and any(row.get(name, value) != value for name, value in totals.items()):
                raise ConfigError(f"resume: {path} is not the record of this run; put the right one in its place")
    missing = [round_ for round_ in range(rounds) if round_ not in where]
    faults = {
        "unreadable lines: %s": damaged,
        "changed lines, or another run's: %s": foreign,
        "rounds twice: %s": twice,
        "missing rounds: %s": missing,
    }
    if said := [text % ranges(numbers) for text, numbers in faults.items() if numbers]:
        if damaged or foreign or twice:
            copies = (path.with_name(f"{path.name}.damaged{i or ''}") for i in numbers_from())
            copy = next(copy for copy in copies if not copy.exists())
            shutil.copyfile(path, copy)
            said.append(f"the file as it was is kept as {copy.name}")
        log.warning("%s: %s; the run goes on", path, "; ".join(said))
    _keep(path, [where[round_] for round_ in sorted(where)])
    return missing


def _keep(path: Path, offsets: Sequence[int]) -> None:
    """Keep the lines that begin at these offsets, in this order."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w") as kept:
        if path.exists():
            with open(path, "rb") as file:
                for offset in offsets:
                    file.seek(offset)
                    line = file.readline()
                    kept.write(line.decode() if SEAL.search(line) else to_json(from_json(line)) + "\n")
    os.replace(partial, path)


def write_parquet(path: Path, target: Path, metadata: dict[str, str]) -> None:
    """The record as a table, one row a round, from its lines in chunks; columns as in the rows."""
    import polars as pl  # large, and needed only at a run's end

    rows = each_row(path)
    frames = []
    while chunk := list(islice(rows, CHUNK)):
        frames.append(pl.DataFrame(chunk, infer_schema_length=None))
    content = io.BytesIO()  # Polars hides that a disk is full in an error of its own
    table = pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()
    table.write_parquet(content, metadata=metadata)
    write_atomically(target, content.getvalue())


def ranges(numbers: Sequence[int]) -> str:
    """Numbers in few words.

    >>> ranges([3, 4, 5, 9, 4])
    '3-5, 9'
    """
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def _lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """Number, content and whether it ends as a line does, of every line."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            yield number, line, line.endswith(b"\n")


def _parsed(line: bytes) -> Row | None:
    """The row of a line, None for what is no row."""
    try:
        row = from_json(line)
        row.pop("seal", None)
    except (ValueError, RecursionError, AttributeError):
        return None
    is_row = type(row.get("round")) is int and row["round"] >= 0 and row.keys() >= {"rounds", "test_loss"}
    return row if is_row else None
