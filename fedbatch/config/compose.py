"""Where the config is found and how it is composed: on the command line, and inside a Flower app."""

import shlex
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from fedbatch.config.checks import did_you_mean
from fedbatch.config.schema import parse
from fedbatch.core.errors import ConfigError

_PACKAGE = Path(__file__).parents[1]


def config_dir() -> str:
    """Folder of the YAML files: inside an installed package, or beside it in a checkout."""
    installed, checkout = _PACKAGE / "conf", _PACKAGE.parent / "conf"
    return str(installed if installed.is_dir() else checkout)


def search_also(folder: str) -> None:
    """Let every config that this process composes choose from the YAML files in ``folder`` too, as --config-dir does.

    Raises:
        ConfigError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise ConfigError(f"--config-dir: {folder} is not a folder; name the one that holds GROUP/NAME.yaml")

    class Own(SearchPathPlugin):
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            search_path.append(folder, f"file://{Path(folder).resolve()}")

    Plugins.instance().register(Own)


def config_json(run_config: Mapping[str, Any]) -> str:
    """The resolved config of a Flower run, as JSON.

    ``fedbatch`` passes it whole in ``config``; ``flwr run . --run-config 'overrides="rounds=20 dataset=digits"'``
    passes Hydra overrides, which are composed here, alike on the server and on every node.
    """
    return str(run_config.get("config") or "") or _compose(str(run_config.get("overrides", "")))


@lru_cache(maxsize=4)
def _compose(overrides: str) -> str:
    return parse(composed(shlex.split(overrides))).to_json()


def composed(overrides: Sequence[str], values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The values of a resolved config.

    Args:
        overrides: as on the command line.
        values: by key, dotted or not; set after the overrides and before interpolations are resolved.

    Raises:
        HydraException, OmegaConfBaseException: an override or a key that is not there.
    """
    ours, outer = GlobalHydra.instance(), GlobalHydra.instance().hydra
    ours.clear()  # Hydra composes one config at a time, and a run of a sweep may ask for the defaults
    try:
        with initialize_config_dir(config_dir(), version_base="1.3"):
            config = compose("config", list(overrides))
            refuse_unknown_choices(overrides)
    finally:
        ours.hydra = outer
    for key, value in (values or {}).items():
        OmegaConf.update(config, key, value, merge=isinstance(value, Mapping) and "_target_" not in value)
    resolved = OmegaConf.to_container(config, resolve=True)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def refuse_unknown_choices(overrides: Sequence[str]) -> None:
    """Refuse a choice of an optional group that is not there, which Hydra passes over without a word.

    Raises:
        ConfigError: naming the choices.
    """
    loader = GlobalHydra.instance().config_loader()
    for override in overrides:
        group, _, choice = override.lstrip("+").partition("=")
        known = loader.get_group_options(group) if group.isidentifier() else []
        if known and "=" in override and choice not in (*known, "null") and choice.isidentifier():
            listed = ", ".join(sorted(known))
            raise ConfigError(f"{group}={choice} does not exist; choose from {listed}{did_you_mean(choice, known)}")


def groups() -> dict[str, list[str]]:
    """The groups of conf/ and the choices of each."""
    folders = sorted(folder for folder in Path(config_dir()).iterdir() if folder.is_dir())
    return {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}
