"""``fedbatch doctor``: what is installed, which devices and data sets are there, and how to get the rest."""

import os
import platform
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from omegaconf import OmegaConf
from packaging.requirements import Requirement
from rich.table import Table
from rich.text import Text

from fedbatch.cli import needs
from fedbatch.config.build import build
from fedbatch.config.compose import config_dir
from fedbatch.core.errors import ConfigError

PACKAGE = "fedbatch"


def tables(overrides: Sequence[str] = ()) -> Iterator[Table]:
    """Versions, devices, extras and data sets, each with the command that mends what is missing.

    With overrides of a run, also what that run needs.
    """
    for title, rows in (
        *((("this config", needs.config(overrides)),) if overrides else ()),
        ("installed", installed()),
        ("devices", devices()),
        ("machine", needs.machine()),
        ("extras", extras()),
        ("data sets", datasets()),
    ):
        table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
        for _ in range(2):
            table.add_column(overflow="fold")
        for name, state in rows:
            table.add_row(name, Text(state))  # brackets are no markup
        yield table


def installed() -> Iterator[tuple[str, str]]:
    """Python, this package and what it cannot do without."""
    yield "python", platform.python_version()
    yield PACKAGE, metadata.version(PACKAGE)
    for requirement in requirements(PACKAGE):
        yield requirement.name, missing(requirement) or metadata.version(requirement.name)


def devices() -> Iterator[tuple[str, str]]:
    """Processors and what torch can compute on."""
    import torch

    yield "cpu", f"{os.cpu_count()} cores"
    for i in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(i).total_memory
        yield f"cuda:{i}", f"{torch.cuda.get_device_name(i)}, {memory / 2**30:.0f} GiB"
    if not torch.cuda.is_available():
        yield "cuda", f"none that torch {torch.__version__} can use"


def extras() -> Iterator[tuple[str, str]]:
    """Each extra: complete, or what it lacks and the command that installs it."""
    for extra in metadata.metadata(PACKAGE).get_all("Provides-Extra") or []:
        own = [r for r in requirements(PACKAGE, extra) if r.name != PACKAGE]
        lacking = [f"{r.name} {lack}" for r in own if (lack := missing(r))]
        yield extra, f"{', '.join(lacking)}; pip install 'fedbatch[{extra}]'" if lacking else "complete"


def datasets() -> Iterator[tuple[str, str]]:
    """Each choice of ``dataset=``, loaded: its size, or why not."""
    for path in sorted(Path(config_dir(), "dataset").glob("*.yaml")):
        node = OmegaConf.load(path)
        if missing_keys := OmegaConf.missing_keys(node):
            yield path.stem, "give " + ", ".join(f"dataset.{key}" for key in sorted(missing_keys))
            continue
        try:
            loaded = build("dataset", OmegaConf.to_container(node))  # type: ignore[arg-type]
        except ConfigError as error:
            yield path.stem, str(error)
        else:
            yield path.stem, f"{len(loaded.train_y):,} training and {len(loaded.test_y):,} test examples"


def requirements(package: str, extra: str = "") -> list[Requirement]:
    """What an installed package asks for, or what one of its extras adds."""
    found = [Requirement(text) for text in metadata.requires(package) or []]
    base = [r for r in found if not r.marker or r.marker.evaluate({"extra": ""})]
    return [r for r in found if r not in base and r.marker and r.marker.evaluate({"extra": extra})] if extra else base


def missing(requirement: Requirement) -> str:
    """What is wrong with a requirement, also with those that its own extras add; or nothing.

    >>> missing(Requirement("numpy>=1")), missing(Requirement("no-such-package"))
    ('', 'missing')
    """
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return "missing"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{version} is not {requirement.specifier}"
    added = [r for extra in sorted(requirement.extras) for r in requirements(requirement.name, extra)]
    return ", ".join(f"without {r.name}: {lack}" for r in added if (lack := missing(r)))
