"""A proposed run as a config file that ``--config-name`` takes, with its reasons as a comment."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fedbatch.config.compose import groups
from fedbatch.core.errors import ConfigError


def written_by(command: str) -> str:
    """The first line of a file that a command has written."""
    return f"# Written by fedbatch {command}."


def refuse_other(path: Path, command: str) -> None:
    """Refuse to write over a file that was not written here.

    Raises:
        ConfigError: it is somebody's own.
    """
    if path.exists() and not path.read_text(errors="replace").startswith(written_by(command)):
        raise ConfigError(f"{path} is there and was not written by fedbatch {command}; give another folder by --folder")


def proposal(command: str, name: str, overrides: Sequence[str], reasons: Sequence[str]) -> str:
    """The text of a config file.

    Args:
        command: that writes it.
        name: of the file, without its ending.
        overrides: of the proposed run.
        reasons: lines of the comment.

    Raises:
        ConfigError: an override that a file cannot hold.
    """
    choices, values = list[dict[str, str]](), OmegaConf.create()
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.is_sweep_override() or override.is_delete():
            raise ConfigError(f"{override.input_line}: {name}.yaml is of one config; leave sweeps and deletions out")
        key = override.key_or_group
        if key in groups():
            choices.append({f"override /{key}": str(override.value())})
        else:
            OmegaConf.update(values, key, override.value(), force_add=True)
    lines = [*reasons, f"Run it: fedbatch --config-dir=. --config-name={name}   (in this folder), or paste"]
    comment = "\n".join(
        [written_by(command), *(f"# {line}" for line in lines), f"#   fedbatch {shlex.join(overrides)}"]
    )
    defaults = yaml.safe_dump({"defaults": ["config", *choices, "_self_"]}, sort_keys=False)
    return f"{comment}\n{defaults}{OmegaConf.to_yaml(values)}"
