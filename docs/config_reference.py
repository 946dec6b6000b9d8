"""Writes the pages config.md and columns.md of the site from what they are about, so that they cannot fall behind."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from fedbatch.core.columns import COLUMNS

CONF = Path(__file__).parents[1] / "conf"
INTRODUCTION = """# Config

`conf/` as it is: a folder is a group, a file in it a choice (`fedbatch model=cnn`), a key an override
(`fedbatch model.channels=16`). `fedbatch --cfg job` shows the whole of a run's config, with all choices made.
"""
COLUMNS_INTRODUCTION = """# Columns of the record

For those who read `rounds.parquet` or `rounds.jsonl` of a run: one row a round, and these columns. A `*` stands for
several names. A column is there where what it tells of was asked for.
"""


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
    """Every YAML file in a section of its own, groups by name."""
    parts = [INTRODUCTION, "## The run\n\n" + code(CONF / "config.yaml")]
    for group in sorted(folder for folder in CONF.iterdir() if folder.is_dir()):
        parts.append(f"## {group.name}")
        parts += [f"### {group.name}={path.stem}\n\n{code(path)}" for path in sorted(group.glob("*.yaml"))]
    return "\n\n".join(parts)


def code(path: Path) -> str:
    """A file as a block of YAML."""
    return f"```yaml\n{path.read_text()}```"
