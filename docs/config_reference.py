"""Writes the page config.md of the site from the YAML files themselves, so that it cannot fall behind them."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

CONF = Path(__file__).parents[1] / "conf"
INTRODUCTION = """# Config

`conf/` as it is: a folder is a group, a file in it a choice (`fedbatch model=cnn`), a key an override
(`fedbatch model.channels=16`). `fedbatch --cfg job` shows the whole of a run's config, with all choices made.
"""


def on_files(files: Files, config: Any) -> Files:
    """Add the page, when mkdocs has found the others."""
    files.append(File.generated(config, "config.md", content=page()))
    return files


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
