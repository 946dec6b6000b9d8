"""A sweep that is run again: what has finished in its folder is left as it is, under whatever number."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fedbatch.config import RunConfig, parse


def finished_before(config: RunConfig) -> Path | None:
    """The folder, beside or at the config's own, of a run that finished and was the same; None without one."""
    for told in sorted(Path(config.run_dir).parent.glob("*/summary.json")):
        if _finished(told.parent) and _same(told.parent, config):
            return told.parent
    return None


def beside_others(config: RunConfig) -> RunConfig:
    """The config with a folder of its own, should another run have finished where Hydra would put this one.

    Hydra numbers the runs of a sweep as they come, so that one value more in front renumbers all.
    """
    folder = Path(config.run_dir)
    if not _finished(folder):
        return config
    return replace(config, run_dir=f"{folder}-{config.identity()[:8]}")


def _finished(folder: Path) -> bool:
    told = folder / "summary.json"
    return told.is_file() and json.loads(told.read_text())["status"] == "finished"


def _same(folder: Path, config: RunConfig) -> bool:
    values: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    try:
        saved = parse(values)
    except ValueError:  # of an older fedbatch, with other keys
        return False
    return saved.identity() == config.identity() and saved.rounds == config.rounds
