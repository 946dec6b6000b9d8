"""Writes the pages config.md and columns.md of the site from what they are about, so that they cannot fall behind."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import fedbatch
from fedbatch.config.checks import CHOICES
from fedbatch.config.ranges import range_of
from fedbatch.core.columns import COLUMNS

CONF = Path(__file__).parents[1] / "conf"
UNBOUNDED = 1e9
"""From here on the end of a range only keeps numbers finite."""
LINE = re.compile(r"( *)([\w@/.+-]+):(?: +([^#\s][^#]*?))?(?:\s+# ?(.*))?")
INTRODUCTION = """# Config

For those who look a key up. A group is a part of a run, and a choice is what it can be: `fedbatch model=cnn` takes the
choice `cnn` for the group `model`. Every key below can be set on the command line, with the name of its group in front:
`fedbatch model.channels=16`; the keys of the run have no group. `fedbatch --cfg job` shows the whole config of a run.
Files: `conf/`.

`null` is nothing; what it stands for is said under "meaning". A default such as `${cohort_size}` is the value of that
key. In ranges, square brackets hold their end and round ones do not.
"""
COLUMNS_INTRODUCTION = """# Columns of the record

For those who read `rounds.parquet` or `rounds.jsonl` of a run: one row a round, and these columns. A `*` stands for
several names. A column is there where what it tells of was asked for.
"""


def on_config(config: Any) -> Any:
    """Say at the foot of each page which version it is of."""
    config.copyright = f"fedbatch {fedbatch.__version__}"
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the page, when mkdocs has found the others."""
    files.append(File.generated(config, "config.md", content=page()))
    files.append(File.generated(config, "columns.md", content=columns_page()))
    return files


def columns_page() -> str:
    """The columns of a record, as a table."""
    lines = [f"| `{c.name}` | {c.unit.replace('_', ' ')} | {c.better} | {c.meaning} |" for c in COLUMNS]
    return "\n".join([COLUMNS_INTRODUCTION, "| column | unit | better | meaning |", "|---|---|---|---|", *lines])


def page() -> str:
    """The run, then every group with its choices: what each is for, and a table of its keys."""
    parts = [INTRODUCTION, "## The run", table(CONF / "config.yaml", "")]
    for group in sorted(folder for folder in CONF.iterdir() if folder.is_dir()):
        parts.append(f"## {group.name}")
        for path in sorted(group.glob("*.yaml")):
            parts += [f"### {group.name}={path.stem}", said(path), table(path, f"{group.name}.")]
    return "\n\n".join(part for part in parts if part)


def said(path: Path) -> str:
    """The comments at the head of a file: commands that choose it, and what it is."""
    head = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        head.append(line[1:].strip())
    return "\n".join(f"- {command(line)}" for line in head if not line.startswith("@package"))


def command(line: str) -> str:
    """A line with its command as code: ``fedbatch model=cnn     a network`` ends in what the command is for."""
    words = re.split(r"\s{2,}", line, maxsplit=1)
    if not words[0].startswith(("fedbatch ", "python ")):
        return cell(line)
    return f"`{words[0]}`" + (f": {cell(words[1])}" if len(words) > 1 else "")


def table(path: Path, prefix: str) -> str:
    """Key, default, range and meaning of every line of a file; empty where it has no keys."""
    lines = [
        f"| `{key}` | {f'`{default}`' if default else ''} | {interval(prefix + key)} | {cell(meaning)} |"
        for key, default, meaning in keys(path.read_text())
    ]
    return "\n".join(["| key | default | range | meaning |", "|---|---|---|---|", *lines]) if lines else ""


def keys(text: str) -> Iterator[tuple[str, str, str]]:
    r"""Dotted key, value and comment of each line of YAML that has a value or a comment, but of Hydra's own.

    >>> list(keys("a: 1  # one\nb:\n  c: x"))
    [('a', '1', 'one'), ('b.c', 'x', '')]
    """
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = LINE.fullmatch(line)
        if not found:
            continue
        indent, key, value, comment = len(found[1]), found[2], found[3] or "", found[4] or ""
        above = [(i, name) for i, name in above if i < indent] + [(indent, key)]
        path = [name for _, name in above]
        if path[0] not in ("defaults", "hydra") and (value or comment):
            yield ".".join(path), value, comment


def interval(key: str) -> str:
    """The range of a number, as the table of ranges has it."""
    found = range_of(key)
    if found is None:
        return ", ".join(f"`{choice}`" for choice in CHOICES.get(key, ()))
    numbers, _, other = found.text.partition(" or ")
    low, high = (plain(end) for end in numbers[1:-1].split(","))
    return f"{numbers[0]}{low}, {high}{numbers[-1]}" + (f" or {other}" if other else "")


def plain(end: str) -> str:
    """An end of a range; what is as large as numbers get is no bound.

    >>> plain("0.5"), plain(" 1e38")
    ('0.5', '...')
    """
    return "..." if abs(float(end)) >= UNBOUNDED else end.strip()


def cell(text: str) -> str:
    """Text in a table."""
    return text.replace("|", "\\|")
