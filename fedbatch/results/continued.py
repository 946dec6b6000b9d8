"""The config with which a run goes on: its own, but for what may change."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedbatch.config.schema import CONTINUED, DEFAULTS, RunConfig, parse
from fedbatch.config.trust import OF_A_FOLDER, refuse_strangers
from fedbatch.core.errors import ConfigError
from fedbatch.results.folder import begun_values
from fedbatch.results.own import trusted_in


def continued(
    folder: Path, changed: Iterable[str], values: Mapping[str, Any], given_here: Iterable[str] = ()
) -> RunConfig:
    """The config of the run in ``folder`` with the keys that were ``changed`` as they are in ``values``.

    Args:
        folder: of the run.
        changed: dotted names.
        values: a whole config, with ``run_dir`` and ``resume``; its ``trust`` counts, that of the folder does not.
        given_here: targets that the caller has given himself.

    Raises:
        ConfigError: there is no run, a key cannot change, or the folder names code that is not trusted.
    """
    if not values["resume"]:
        raise ConfigError("resume must be the folder of an earlier run (got '')")
    if values["overwrite"]:
        raise ConfigError("resume goes on with a run and overwrite=true deletes it; give one of the two")
    try:
        old = DEFAULTS | begun_values(folder)
    except ConfigError as error:
        raise ConfigError(f"resume: {error}") from error
    changed = list(changed)
    refuse(changed, values, old)
    given = {name.split(".")[0] for name in changed} | {"resume", "run_dir", "trust"}  # not what the folder trusts
    theirs = {name: value for name, value in old.items() if name not in given}
    try:
        refuse_strangers(theirs, trusted_in(folder, [*values["trust"], *given_here]), OF_A_FOLDER)
    except ConfigError as error:
        raise ConfigError(f"resume: {folder / 'config.yaml'}: {error}") from error
    try:
        return parse(old | {name: values[name] for name in given})
    except ConfigError as error:
        raise ConfigError(f"resume: {folder / 'config.yaml'}: {error}") from error


def refuse(changed: Iterable[str], values: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    """Refuse keys that would make it another run, or break what was planned for it.

    Raises:
        ConfigError: naming the key.
    """
    for name in changed:
        if name.split(".")[0] not in CONTINUED:
            raise ConfigError(f"{name} cannot change when a run is resumed; start a new run instead")
    if (
        "rounds" in changed
        and (old["privacy"] or {}).get("target_epsilon") is not None
        and values["rounds"] != old["rounds"]
    ):
        raise ConfigError(
            f"rounds cannot change on resume: privacy.target_epsilon was planned for {old['rounds']} rounds"
        )
    for name in ("rounds", "nodes"):
        if name in changed and old["active"] and values[name] != old[name]:
            raise ConfigError(
                f"{name} cannot change on resume: queries are planned for {old['rounds']} rounds, and each of the "
                f"{old['nodes']} nodes keeps its clients' labels"
            )
