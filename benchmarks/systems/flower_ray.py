"""Flower's own simulation, on Ray, of the ordinary app in ``benchmarks/flower_app``: one client a message.

It runs in processes of its own and is started with ``flwr run``, so its rounds can't be taken in turn with
those of other systems: a whole run is one measurement, the first round of it cold and the others warm.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import psutil
import torch
from torch import Tensor

from benchmarks.workload import Data, Workload

APP = Path(__file__).parents[1] / "flower_app"
QUIET_AND_OFFLINE = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # else every run installs the app's requirements
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}


@dataclass(frozen=True)
class FlowerRun:
    """What one run of the app measured.

    Attributes:
        cold_seconds: wall seconds of the first round, in which Ray's workers load the app and its data.
        warm_seconds: of every later round, as the server sees them.
        cpu_seconds: of all processes together, for a warm round on average.
        peak_rss_mb: largest sum over all processes, with the memory that they share counted once.
        params: the final parameters in one vector.
    """

    cold_seconds: float
    warm_seconds: list[float]
    cpu_seconds: float
    peak_rss_mb: float
    params: Tensor


def run(workload: Workload, data: Data, rounds: int = 6, cpus: int = 1) -> FlowerRun:
    """Run FedAvg of the MLP over the first ``workload.cohort`` clients, all of them in every round.

    Args:
        workload: ``local_sgd`` of the ``mlp``.
        data: clients beyond the cohort are left out.
        rounds: with the cold one.
        cpus: for Ray, which runs as many clients side by side; the server's own threads come on top.
    """
    if (workload.work, workload.model) != ("local_sgd", "mlp"):
        raise ValueError(f"the Flower app does local_sgd of the mlp only (got {workload.work} of {workload.model})")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        held = data.clients[: workload.cohort]
        torch.save({"x": data.x[held], "y": data.y[held]}, folder / "data.pt")
        config = (
            f'data="{folder}/data.pt" result="{folder}/result.pt" num-server-rounds={rounds} '
            f"batch-size={workload.batch_size} learning-rate={workload.learning_rate} seed={workload.seed}"
        )
        usage = _flwr_run(folder, config, workload.cohort, cpus)
        result = torch.load(folder / "result.pt")
    if result["replies"] != [workload.cohort] * rounds:
        raise RuntimeError(f"some of the {workload.cohort} clients are missing from rounds: {result['replies']}")
    ends = result["ends"]
    seconds = np.diff(ends).tolist()
    cpu = np.interp([ends[1], ends[-1]], usage.times, usage.cpu_seconds)
    params = torch.cat([tensor.reshape(-1) for tensor in result["state"].values()])
    return FlowerRun(seconds[0], seconds[1:], float(cpu[1] - cpu[0]) / (rounds - 1), usage.peak_rss_mb, params)


def _flwr_run(folder: Path, run_config: str, supernodes: int, cpus: int) -> "_Usage":
    """``flwr run`` on a SuperLink of our own, so that nothing of it outlives the run."""
    scripts = Path(sys.executable).parent
    environment = os.environ | QUIET_AND_OFFLINE
    environment |= {"FLWR_HOME": str(folder), "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    port = _free_port()
    (folder / "config.toml").write_text(f'[superlink.bench]\naddress = "127.0.0.1:{port}"\ninsecure = true\n')
    superlink = [f"{scripts}/flower-superlink", "--insecure", "--simulation", "--host", "127.0.0.1"]
    superlink += ["--port", str(port)]
    command = [f"{scripts}/flwr", "run", str(APP), "bench", "--stream", "--run-config", run_config]
    command += ["--federation-config"]
    command += [f"num-supernodes={supernodes} client-resources-num-cpus=1 init-args-num-cpus={cpus}"]
    with open(folder / "log", "w") as log, _process(superlink, environment, log) as server:
        _wait_for(port)
        with _process(command, environment, log) as client:
            usage = _Usage(server.pid)
            while client.poll() is None:
                usage.sample()
                time.sleep(0.25)
    if not (folder / "result.pt").exists():  # a failed run exits with 0 as well
        raise RuntimeError("the Flower run failed:\n" + (folder / "log").read_text()[-4000:])
    return usage


class _Usage:
    """Processor time and memory of a process and all that it started, sampled over time."""

    def __init__(self, pid: int) -> None:
        self.root = psutil.Process(pid)
        self.cpu: dict[int, float] = {}  # by process, also of those that have ended
        self.times: list[float] = []
        self.cpu_seconds: list[float] = []
        self.peak_rss_mb = 0.0

    def sample(self) -> None:
        private, shared = 0, 0
        for process in [self.root, *self.root.children(recursive=True)]:
            with suppress(psutil.Error):  # it has ended meanwhile
                times, memory = process.cpu_times(), process.memory_info()
                self.cpu[process.pid] = times.user + times.system
                private, shared = private + memory.rss - memory.shared, max(shared, memory.shared)
        self.times.append(time.monotonic())
        self.cpu_seconds.append(sum(self.cpu.values()))
        self.peak_rss_mb = max(self.peak_rss_mb, (private + shared) / 2**20)


@contextmanager
def _process(command: list[str], environment: dict[str, str], log: IO[str]) -> Iterator[subprocess.Popen]:
    """A process that is ended, with all that it started, on leaving."""
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            process.terminate()
            for left in psutil.wait_procs(family, timeout=10)[1]:
                with suppress(psutil.Error):
                    left.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(port: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    raise TimeoutError(f"the SuperLink does not answer on port {port}")
