"""The run folder: whether a run is in it, what its config was, and making room for another."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import count as numbers_from
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from fedbatch.config.schema import CONTINUED, RunConfig, identity_of, parse
from fedbatch.core.errors import ConfigError
from fedbatch.core.files import from_json
from fedbatch.results import identity as identities
from fedbatch.results.identity import Identity

TRACES = ("checkpoints/round-*.ckpt", "ledger.jsonl", "rounds.jsonl", "rounds.parquet", "summary.json")
"""Files by which a run is known to have begun in a folder."""
LEFT = (
    *TRACES,
    *("nonce", "answers.jsonl", "best/round-*.ckpt", "best/round-*.partial"),
    *("checkpoints/round-*.partial", "rounds.jsonl.damaged*", "run.json", "config.yaml", "noise_scale.png"),
    *("confusion.parquet", "classes.parquet", "clients.parquet"),
    *("report.html", "critical.png", "active/node-*/*.npz", "clients/*/round-*", "tensorboard/events.out.tfevents.*"),
)
"""All files that a run leaves in its folder."""


def is_used(folder: Path) -> bool:
    """Whether a run has begun in the folder."""
    return any(True for pattern in TRACES for _ in folder.glob(pattern))


def refuse_used(folder: Path) -> None:
    """See that no run has begun in the folder.

    Raises:
        ConfigError: one has; says what to do.
    """
    if is_used(folder):
        private = (folder / "ledger.jsonl").exists()
        what = "the ledger of an earlier private run" if private else "a run in it"
        but = " (what it spent stays on record)" if private else ""
        raise ConfigError(
            f"run_dir: {folder} has {what} ({standing(folder)}); {resume_command(folder)} goes on with it, "
            f"overwrite=true deletes it and starts anew{but}, another run_dir keeps both"
        )


def clear(folder: Path) -> None:
    """Delete what a run has left in the folder, and no other file. Its ledger stays, under another name.

    What was spent on the data is spent, whatever becomes of the run.
    """
    spent = folder / "ledger.jsonl"
    if spent.exists():
        names = (folder / f"ledger-{number}.jsonl" for number in numbers_from(1))
        spent.replace(next(name for name in names if not name.exists()))
    for pattern in LEFT:
        for path in folder.glob(pattern):
            path.unlink()


def standing(folder: Path) -> str:
    """What the summary of a run says of it, in a few words."""
    summary = summary_of(folder)
    return f"{summary['status']}, {summary.get('rounds', 0)} rounds" if summary else "without a summary"


def summary_of(folder: Path) -> dict[str, Any]:
    """The summary of a run; empty where there is none that says how the run stands."""
    try:
        summary = from_json((folder / "summary.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return summary if "status" in summary else {}


def config_values(folder: Path) -> dict[str, Any]:
    """What ``config.yaml`` says, unchecked.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"{folder} has no config.yaml; give the folder of an earlier run")
    try:
        values: Any = OmegaConf.to_container(OmegaConf.create(path.read_text()))
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is damaged ({str(error).splitlines()[0]}); put a copy in its place") from error
    if not isinstance(values, dict) or not values:
        raise ConfigError(f"{path} is damaged (no keys in it); put a copy in its place")
    return {str(name): value for name, value in values.items()}


def begun_values(folder: Path) -> dict[str, Any]:
    """What ``config.yaml`` says, if that is what the run started with.

    Raises:
        ConfigError: it cannot be read, or is another than ``run.json`` knows of.
    """
    values, begun = config_values(folder), identities.read(folder)
    if begun is not None and identity_of(values) != begun.config:
        raise ConfigError(f"{folder / 'config.yaml'} has changed since this run started; put it back as it was")
    return values


def saved_config(folder: Path) -> RunConfig:
    """The config of a run; a key that was not there yet when it started has its default.

    Raises:
        ConfigError: it cannot be read, or has a key that this fedbatch does not know.
    """
    values = begun_values(folder)
    try:
        return parse(values)
    except ConfigError as error:
        raise ConfigError(f"{folder / 'config.yaml'}: {error} (was it written by another fedbatch?)") from error


def refuse_changes(folder: Path, config: RunConfig, begun: Identity | None, now: Identity) -> None:
    """Refuse to go on with a run as if it were the same, when it is not.

    Args:
        folder: of the run.
        config: to go on with.
        begun: what the run was made of when it started; None in a folder of an earlier fedbatch.
        now: what it would be made of.

    Raises:
        ConfigError: naming what has changed, and what to do.
    """
    old, new = (dict(leaves(asdict(each))) for each in (saved_config(folder), config))
    names = sorted(name for name in old | new if old.get(name) != new.get(name))
    if names := [name for name in names if name.split(".")[0] not in CONTINUED]:
        raise ConfigError(f"resume: {', '.join(names)} cannot change when a run is resumed; start a new run instead")
    if begun is None:
        if config.privacy:  # what was released then cannot be told from what would be released now
            raise ConfigError(f"resume: {folder} is a private run of an earlier fedbatch; go on with that version")
        return
    if config.privacy and config.identity() != begun.config:
        raise ConfigError(
            f"resume: this private run was started with fedbatch {begun.fedbatch}, whose configs have other keys; "
            "they key its noise, so go on with that version"
        )
    if changes := begun.changes(now):
        raise ConfigError(
            f"resume: {' and '.join(changes)} changed since this run started; put back what was there then, or start "
            "a new run (in the same folder with overwrite=true in the place of resume)"
        )


def leaves(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values; lists stay whole, as JSON.

    >>> list(leaves({"a": {"b": 1, "c": [2, 3]}}))
    [('a.b', 1), ('a.c', '[2, 3]')]
    """
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from leaves(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, json.dumps(node) if isinstance(node, list) else node


def resume_command(folder: Path) -> str:
    r"""What to type to go on with a run.

    >>> resume_command(Path("runs/a")), resume_command(Path("my run"))
    ('fedbatch resume=runs/a', 'fedbatch "resume=\'my run\'"')
    """
    plain = str(folder)
    if plain == shlex.quote(plain) and not set(plain) & set("@%^+"):
        return f"fedbatch resume={plain}"
    inner = plain.replace("\\", "\\\\").replace("'", "\\'")
    return f'''fedbatch "resume='{inner}'"'''
