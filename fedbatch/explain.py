"""Hydra's and OmegaConf's errors, said in one line with a suggestion."""

import re
from pathlib import Path

from omegaconf import OmegaConf

from fedbatch.compose import config_dir
from fedbatch.config import did_you_mean


def explain(error: BaseException) -> str:
    """One line that names the field and the remedy."""
    text = str(error)
    if match := re.search(r"Key '([^']+)' is not in struct", text + str(error.__cause__)):
        path = re.search(r"full_key: (\S+)", text + str(error.__cause__))
        name = path.group(1) if path else match.group(1)
        return unknown(name)
    if match := re.search(r"Could not override '([^']+)'", text):
        return unknown(match.group(1))
    if match := re.search(r"Could not find '([^'/]+)/([^']+)'", text):
        group, choice = match.groups()
        choices = sorted(path.stem for path in Path(config_dir(), group).glob("*.yaml"))
        listed = f"choose from {', '.join(choices)}" if choices else f"there is no group {group!r}"
        return f"{group}={choice} does not exist; {listed}{did_you_mean(choice, choices)}"
    return text.strip().splitlines()[0]


def unknown(name: str) -> str:
    """A key that this run does not have, though another choice of its group may.

    >>> unknown("active.queries").split(";")[0]
    'active.queries: the chosen active has no such key'
    """
    known, group = known_keys(), name.split(".")[0]
    if name in known:
        return (
            f"{name}: the chosen {group} has no such key; choose another with {group}=... (a resumed run keeps its own)"
        )
    return f"unknown key {name!r}{did_you_mean(name, known)}"


def known_keys() -> list[str]:
    """Dotted names of all keys of the main config and of all choices of its groups."""
    keys: list[str] = []
    root = Path(config_dir())
    for path in sorted(root.rglob("*.yaml")):
        prefix = [] if path.parent == root else [path.parent.name]
        _walk(OmegaConf.to_container(OmegaConf.load(path)), prefix, keys)
    return [*dict.fromkeys(keys)]


def _walk(node: object, prefix: list[str], keys: list[str]) -> None:
    if prefix:
        keys.append(".".join(prefix))
    if isinstance(node, dict):
        for name, value in node.items():
            _walk(value, [*prefix, str(name)], keys)
