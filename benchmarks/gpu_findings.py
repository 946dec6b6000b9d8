"""What `benchmarks.gpu_check` finds: by section, printed and kept, with a clock."""

import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_jobs import job
from fedbatch.clients.job import Job
from fedbatch.config.compose import config_json
from fedbatch.config.schema import RunConfig, from_json
from fedbatch.setup.device import memory_bytes

Finding = dict[str, Any]


class Check:
    """Findings by section, the clock, and the device."""

    def __init__(self, device: str, seconds: float, out: Path):
        self.device, self.seconds, self.out = device, seconds, out
        self.found: dict[str, list[Finding]] = {}
        self.begun = time.perf_counter()
        self.deadline = self.begun + seconds

    def say(self, section: str, **values: Any) -> None:
        """Keep and print one finding."""
        self.found.setdefault(section, []).append(values)
        words = (f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items())
        print(f"[{time.perf_counter() - self.begun:4.0f} s] {section}: {', '.join(words)}", flush=True)

    def is_late(self, section: str, at: str) -> bool:
        """Whether the section's time is up, which is then said."""
        if late := time.perf_counter() > self.deadline:
            self.say(section, stopped_at=at)
        return late

    @property
    def is_gpu(self) -> bool:
        """Whether there is a GPU; on a CPU half of the sections have nothing to ask."""
        return self.device != "cpu"

    def wait(self) -> None:
        """Until the device is done."""
        if self.is_gpu:
            torch.cuda.synchronize()

    def budget(self) -> float | None:
        """Bytes for the clients of a job, as a run has them."""
        return memory_bytes(config_of(self.device), torch.device(self.device))

    def job(self, name: str, work: str, clients: int, **options: Any) -> Job:
        """A job on the device, with a run's budget of memory."""
        return replace(job(name, self.device, work, clients, **options), memory_bytes=self.budget())

    def seconds_of(self, call: Callable[[], Any], repeats: int = 5, most: float = 6.0) -> float:
        """Median seconds of a call, warm; fewer repeats where they take long."""
        taken: list[float] = []
        begun = time.perf_counter()
        for _ in range(repeats + 1):
            start = time.perf_counter()
            call()
            self.wait()
            taken.append(time.perf_counter() - start)
            if time.perf_counter() - begun > most:
                break
        return float(np.median(taken[1:] or taken))


def config_of(device: str) -> RunConfig:
    """The default run's config on a device."""
    return from_json(config_json({"overrides": f"device={device} threads=4"}))


def in_words(error: Exception) -> str:
    """An error in one line, with the line of fedbatch that it comes from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/fedbatch/" in f.filename]
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}: {' '.join(str(error).split())[:200]}"
