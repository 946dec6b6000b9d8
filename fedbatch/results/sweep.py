"""A sweep that is run again: what has finished in its folder is left as it is, and what has not goes on."""

from dataclasses import replace
from pathlib import Path

from fedbatch.config.schema import RunConfig
from fedbatch.core.errors import ConfigError
from fedbatch.results.folder import is_used, saved_config, summary_of


def finished_before(config: RunConfig) -> Path | None:
    """The folder, beside or at the config's own, of a run that finished and was the same; None without one."""
    if config.overwrite:
        return None
    for told in sorted(Path(config.run_dir).parent.glob("*/summary.json")):
        if _finished(told.parent) and _same(told.parent, config):
            return told.parent
    return None


def placed(config: RunConfig) -> RunConfig:
    """The config with a folder of its own, should another run lie where Hydra would put this one.

    Hydra numbers the runs of a sweep as they come, so that one value more in front renumbers all. A run that broke off
    there and was the same goes on.
    """
    folder = Path(config.run_dir)
    if config.overwrite or not is_used(folder):
        return config
    if _finished(folder) or not _same(folder, config):
        folder = Path(f"{folder}-{config.identity()[:8]}")
    started = any(folder.glob("checkpoints/round-*.ckpt"))
    return replace(config, run_dir=str(folder), resume=str(folder) if started else None, overwrite=is_unfit(folder))


def is_unfit(folder: Path) -> bool:
    """Whether a run has begun that cannot go on and has released nothing: it starts over."""
    resumable = any(folder.glob("checkpoints/round-*.ckpt")) or (folder / "ledger.jsonl").exists()
    return is_used(folder) and not resumable


def _finished(folder: Path) -> bool:
    return bool(summary_of(folder).get("status") == "finished")


def _same(folder: Path, config: RunConfig) -> bool:
    try:
        saved = saved_config(folder)
    except ConfigError:  # damaged, or of an older fedbatch with other keys
        return False
    return saved.identity() == config.identity() and saved.rounds == config.rounds
