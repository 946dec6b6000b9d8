"""``python -m benchmarks.peak SPEC``: run one system by itself and print its seconds and peak memory in MiB."""

import json
import resource
import statistics
import sys
import time
from pathlib import Path

from benchmarks.measure import Spec, prepare
from benchmarks.workload import Workload, random_data


def main(text: str) -> None:
    """Build the system of a `Spec` in JSON, run its rounds and print what they took."""
    fields = json.loads(text)
    spec = Spec(**fields | {"workload": Workload(**fields["workload"])})
    prepare(spec.threads)
    system = spec.build(random_data(spec.population, spec.examples, model=spec.workload.model))
    seconds = []
    for round_ in range(spec.rounds):
        begin = time.perf_counter()
        system.round(round_)
        seconds.append(time.perf_counter() - begin)
    print(json.dumps({"peak_rss_mb": peak_mb(), "seconds": statistics.median(seconds[1:] or seconds)}))


def peak_mb() -> float:
    """Peak resident memory of this process."""
    # On Linux getrusage counts what the parent held when it forked us; VmHWM begins anew with the program.
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


if __name__ == "__main__":
    main(sys.argv[1])
