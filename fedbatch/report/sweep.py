"""What a sweep says in a terminal while it goes: which run begins, and of how many."""

import json
import math
import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from fedbatch.results.choices import in_line

PLAN = "FEDBATCH_SWEEP"
"""Environment variable that tells the processes of a launcher which keys are swept, and how many runs there are."""
BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


class SweepInTerminal(Callback):
    """Says before each run of a sweep which it is; puts its number before its lines where others run beside it."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Count the runs, before there is any."""
        values = swept(config)
        trials = config.hydra.sweeper.get("n_trials")
        total = trials or math.prod(values.values())
        beside = config.hydra.launcher._target_ != BASIC
        os.environ[PLAN] = json.dumps({"keys": list(values), "total": total, "beside": beside})

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Say which run begins, where this is a sweep."""
        if PLAN not in os.environ:
            return
        plan, job = json.loads(os.environ[PLAN]), config.hydra.job.num + 1
        own = choices(list(config.hydra.overrides.task))
        of = f" of {plan['total']}" if plan["total"] else ""
        print(f"run {job}{of}: {in_line(own)}", flush=True)
        if plan["beside"]:  # this process is the launcher's and does one run at a time
            sys.stdout = Numbered(getattr(sys.stdout, "stream", sys.stdout), job)


class Numbered:
    """A stream that puts the number of a run before each line.

    Args:
        stream: where lines go.
        job: number of the run.
    """

    def __init__(self, stream: TextIO, job: int):
        self.stream, self._start, self._is_new = stream, f"{job}: ", True

    def write(self, text: str) -> int:
        """Write text, of any number of lines."""
        for line in text.splitlines(keepends=True):
            self.stream.write(self._start + line if self._is_new else line)
            self._is_new = line.endswith("\n")
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def swept(config: DictConfig) -> dict[str, int]:
    """The keys that a sweep varies, and how many values each takes; 0 for what cannot be counted beforehand."""
    params = config.hydra.sweeper.get("params") or {}
    given = [f"{key}={value}" for key, value in params.items()] + list(config.hydra.overrides.task)
    found: dict[str, int] = {}
    for override in OverridesParser.create().parse_overrides(given):
        key = override.get_key_element().lstrip("+")
        found.pop(key, None)  # the last of a key counts, as in Hydra
        if override.is_sweep_override():
            try:
                found[key] = len(list(override.sweep_string_iterator()))
            except (HydraException, AssertionError):  # an interval, or names of files
                found[key] = 0
    return found


def choices(overrides: Iterable[str]) -> dict[str, str]:
    """What a run of the sweep in this environment has of its own; nothing outside of a sweep."""
    keys = json.loads(os.environ.get(PLAN, "{}")).get("keys", [])
    pairs = (override.lstrip("+").partition("=")[::2] for override in overrides)
    return {key: value for key, value in pairs if key in keys}
