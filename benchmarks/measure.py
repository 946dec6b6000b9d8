"""Time systems in turn, so that whatever else the machine does meanwhile falls on all of them alike."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.systems import System
from benchmarks.workload import Data, Workload
from fedbatch.setup.allocator import keep_freed_memory

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Row:
    """What one system took for one call.

    Attributes:
        system: its name.
        seconds_median: wall seconds over the repeats, and the least and the most of them.
        cpu_seconds: of this process with all its threads, median over the repeats; None where nobody could tell.
    """

    system: str
    seconds_median: float
    seconds_min: float
    seconds_max: float
    cpu_seconds: float | None


@dataclass(frozen=True)
class Spec:
    """A system that any process can build.

    Attributes:
        factory: ``"module:name"`` of something called as ``name(workload, data, **options)``.
        workload: its first argument.
        options: further keyword arguments, plain enough for JSON.
        population: clients in the random data.
        examples: of each client.
        threads: for PyTorch.
        rounds: to run before memory is read.
    """

    factory: str
    workload: Workload
    options: dict[str, Any] = field(default_factory=dict)
    population: int = 1000
    examples: int = 50
    threads: int = 1
    rounds: int = 2

    def build(self, data: Data) -> System:
        """The system on ``data``."""
        module, name = self.factory.split(":")
        return getattr(import_module(module), name)(self.workload, data, **self.options)


def prepare(threads: int) -> None:
    """Settings of the process that all systems profit from alike."""
    torch.set_num_threads(threads)
    keep_freed_memory()


def interleaved(systems: Mapping[str, Callable[[], None]], repeats: int = 5, warmup: int = 2) -> list[Row]:
    """Call every system once in each repeat, in turn; the first ``warmup`` repeats don't count.

    >>> [row.system for row in interleaved({"a": lambda: None, "b": lambda: None})]
    ['a', 'b']
    """
    wall: dict[str, list[float]] = {name: [] for name in systems}
    cpu: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(warmup + repeats):
        for name, call in systems.items():
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            call()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            wall[name].append(time.perf_counter() - wall_start)
            cpu[name].append(time.process_time() - cpu_start)
    return [_row(name, wall[name][warmup:], cpu[name][warmup:]) for name in systems]


def _row(name: str, wall: list[float], cpu: list[float]) -> Row:
    return Row(name, statistics.median(wall), min(wall), max(wall), statistics.median(cpu))


def peak_rss_mb(spec: Spec) -> float:
    """Peak memory of a fresh process that does nothing but build the system and run its rounds."""
    return alone(spec)["peak_rss_mb"]


def alone(spec: Spec) -> dict[str, float]:
    """``peak_rss_mb`` and the median ``seconds`` of a warm round, in a fresh process."""
    environment = os.environ | {"OMP_NUM_THREADS": str(spec.threads)}
    command = [sys.executable, "-m", "benchmarks.peak", json.dumps(asdict(spec))]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{spec.factory} failed in a process of its own:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> str:
    """Processor, cores, threads and PyTorch, in one line."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = names[0].split(":", 1)[1].strip() if names else name
    if torch.cuda.is_available():
        name += f" + {torch.cuda.get_device_name()}"
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"
