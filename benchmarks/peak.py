"""``python -m benchmarks.peak SPEC``: run one system by itself and print its peak memory in MiB."""

import json
import resource
import sys
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.measure import Spec
from benchmarks.workload import Workload, random_data


def main(text: str) -> None:
    """Build the system of a `Spec` in JSON, run its rounds and print the peak."""
    fields = json.loads(text)
    spec = Spec(**fields | {"workload": Workload(**fields["workload"])})
    torch.set_num_threads(spec.threads)
    module, name = spec.factory.split(":")
    data = random_data(spec.population, spec.examples)
    system = getattr(import_module(module), name)(spec.workload, data, **spec.options)
    for round_ in range(spec.rounds):
        system.round(round_)
    print(_peak_mb())


def _peak_mb() -> float:
    # On Linux getrusage counts what the parent held when it forked us; VmHWM begins anew with the program.
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


if __name__ == "__main__":
    main(sys.argv[1])
