"""What is measured against what: the work, the systems that do it, and how often each is called."""

from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from itertools import count
from typing import Any

from benchmarks.measure import Row, Spec, interleaved
from benchmarks.systems import System
from benchmarks.systems.fused_limit import candidates
from benchmarks.workload import Data, Workload, random_data

RAY_WORK = Workload("local_sgd", "mlp", cohort=100)
QUICK_CNN_COHORT = 10
TUNED = ("limit", "JAX")
"""Systems that are measured in several ways, of which the fastest counts."""
EXECUTORS = {"fedsgd": ("fused", "vmap", "loop"), "local_sgd": ("vmap", "loop")}


def workloads(quick: bool) -> list[Workload]:
    """All work but the one that Flower on Ray does; ``quick`` takes smaller cohorts of the CNN."""
    cnn = QUICK_CNN_COHORT if quick else 50
    work = [Workload("fedsgd", "mlp", cohort) for cohort in (10, 50, 200)]
    work += [Workload("fedsgd", "cnn", cohort) for cohort in ([cnn] if quick else [cnn, 200])]
    work += [Workload("fedsgd", "mlp", 200, batch_size=50), Workload("fedsgd", "cnn", cnn, batch_size=50)]
    work += [Workload("local_sgd", "mlp", cohort) for cohort in (10, 50, 200)]
    work += [Workload("local_sgd", "cnn", cnn)]
    return [*work, Workload("fedsgd", "resnet", 10), Workload("fedsgd", "gpt", 10, batch_size=4)]


def data_of(workload: Workload, device: str = "cpu") -> Data:
    """The examples of a kind of work; fewer clients where an image is large."""
    return random_data(100 if workload.model == "resnet" else 1000, device=device, model=workload.model)


def repeats(workload: Workload, quick: bool) -> int:
    """How often to call each system: the shorter the round, the oftener."""
    if workload.model != "mlp":
        return 2 if quick else 5
    if workload.work == "local_sgd":
        return 3 if quick else 9
    return 9 if quick else 31


def specs(workload: Workload, data: Data, threads: int, pfl: bool) -> dict[str, Spec]:
    """All systems that can do the work, by the names they have in the table."""

    def spec(factory: str, **options: Any) -> Spec:
        return Spec(f"benchmarks.systems.{factory}", workload, options, *data.clients.shape, threads=threads)

    found = {
        f"limit {place}": spec("fused_limit:FusedLimit", **options)
        for place, options in enumerate(candidates(workload, data))
    }
    for executor in EXECUTORS[workload.work]:
        for measured in (True, False):
            name = f"fedbatch {executor}" + ("" if measured else " unmeasured")
            found[name] = spec("fedbatch_sim:FedbatchSim", executor=executor, measured=measured)
    if workload.model == "mlp" and data.x.device.type == "cpu":
        found["fedbatch chain"] = spec("fedbatch_sim:FedbatchSim", executor="chain")
    found["plain loop with norms"] = spec("plain_loop:PlainLoop")
    found["plain loop"] = spec("plain_loop:PlainLoop", with_norms=False)
    if workload.model in ("mlp", "cnn") and installed("jax") and data.x.device.type == "cpu":
        for clients in ("scan", "vmap"):
            found[f"JAX {clients}"] = spec("jax_sim:JaxSim", clients=clients)
    if pfl and workload.model in ("mlp", "cnn"):
        found["pfl"] = spec("pfl_sim:PflSimulation")
    return found


def installed(package: str) -> bool:
    """Whether an optional rival is there."""
    return find_spec(package) is not None


def measure(found: dict[str, Spec], data: Data, repeats: int) -> list[Row]:
    """Rounds of all systems in turn; each runs rounds 0, 1, 2 ... of the same work."""
    systems = {name: spec.build(data) for name, spec in found.items()}
    return interleaved({name: _next_round(system) for name, system in systems.items()}, repeats, warmup=1)


def fastest_limit(rows: list[Row]) -> list[Row]:
    """Of the limits and of the ways to write JAX only the fastest stays: a rival is taken at its best."""
    slower = []
    for name in TUNED:
        alike = [row for row in rows if row.system.startswith(f"{name} ")]
        slower += sorted(alike, key=lambda row: row.seconds_median)[1:]
    return [row for row in rows if row not in slower]


def record(workload: Workload, threads: int, row: Row, peak_rss_mb: float | None) -> dict[str, Any]:
    """A row of the table, as plain values."""
    what = {"work": workload.work, "model": workload.model, "cohort": workload.cohort}
    values = what | {"batch_size": workload.batch_size, "threads": threads} | asdict(row)
    return values | {"peak_rss_mb": peak_rss_mb}


def _next_round(system: System) -> Callable[[], None]:
    rounds = count()
    return lambda: system.round(next(rounds))
