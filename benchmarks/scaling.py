"""``python -m benchmarks.scaling``: one round of fedbatch against cohort and population, and where its time goes.

Every point is a fresh process. Clients hold 50 examples each, drawn with replacement from 10,000 random images, so that
a population of a million needs no memory of its own; batches are drawn as fedbatch does by itself.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Spec, alone, machine, prepare
from benchmarks.ratios import Ratio
from benchmarks.systems.fedbatch_sim import FedbatchSim
from benchmarks.workload import Data, Work, Workload, random_data
from fedbatch.data.partition import DrawnPartition
from fedbatch.results.store import RunStore

Record = dict[str, Any]
MILLION = 1_000_000
IMAGES = (1000, 10)  # clients x examples of `random_data`, of which only the 10,000 images matter
EXAMPLES = 50  # of a client


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file to write")
    arguments = parser.parse_args()
    prepare(arguments.threads)
    console = Console()
    points = curves(arguments.threads)
    console.print(curve_table(points))
    seconds = stages()
    console.print(stage_table(seconds))
    found = figures(points, seconds)
    for ratio in found:
        console.print(f"{ratio.name}: {ratio.ratio:.2f}, target {ratio.bound} {ratio.target:g}: {ratio.verdict}")
    console.print(machine())
    if arguments.json:
        content = {"machine": machine(), "points": points, "stage_seconds": seconds}
        content["ratios"] = [ratio.record() for ratio in found]
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


class DrawnPopulation(FedbatchSim):
    """fedbatch on a population of any size, of which nothing is stored."""

    def __init__(self, workload: Workload, data: Data, population: int, executor: str) -> None:
        partition = DrawnPartition(len(data.y), population, EXAMPLES, workload.seed)
        super().__init__(workload, data, executor, shuffle=True, partition=partition)


def curves(threads: int) -> list[Record]:
    """Seconds and peak memory of a round, a point each."""
    return [
        *[point("fedsgd", "fused", cohort, MILLION, threads) for cohort in (10, 100, 1000, 10_000)],
        *[point("local_sgd", "vmap", cohort, MILLION, threads) for cohort in (10, 100, 1000)],
        *[point("fedsgd", "fused", 100, population, threads) for population in (1000, 10_000, 100_000)],
    ]


def point(work: Work, executor: str, cohort: int, population: int, threads: int) -> Record:
    """One round of the MLP with batches of 10, the median of five warm ones."""
    options = {"population": population, "executor": executor}
    workload = Workload(work, "mlp", cohort)
    spec = Spec("benchmarks.scaling:DrawnPopulation", workload, options, *IMAGES, threads=threads, rounds=6)
    what = {"work": work, "executor": executor, "cohort": cohort, "population": population, "threads": threads}
    return what | alone(spec)


def stages(rounds: int = 40) -> dict[str, float]:
    """Median seconds of each stage of a round of FedSGD with 200 clients; ``client work`` is the node's own."""
    system = FedbatchSim(Workload("fedsgd", "mlp", cohort=200), random_data(), shuffle=True)
    measured = [_stages_of_round(system, round_) for round_ in range(rounds)][rounds // 4 :]
    seconds = {name: median(row[name] for row in measured) for name in measured[0]}
    return seconds | {"record": _record_seconds(system)}


def _stages_of_round(system: FedbatchSim, round_: int) -> dict[str, float]:
    begin = time.perf_counter()
    system.round(round_)
    whole = time.perf_counter() - begin
    row, work = system.row, system.work_seconds
    named = {stage: row[f"{stage}_seconds"] for stage in ("plan", "aggregate", "step", "evaluate")}
    messages = row["client_seconds"] - work
    return {"client work": work, "messages": messages} | named | {"rest": whole - work - messages - sum(named.values())}


def _record_seconds(system: FedbatchSim, rows: int = 100) -> float:
    with TemporaryDirectory() as folder:
        store = RunStore(Path(folder), system.task.config)
        with store.recording(0):
            begin = time.perf_counter()
            for _ in range(rows):
                store.append(system.row)
            return (time.perf_counter() - begin) / rows


def figures(points: list[Record], seconds: dict[str, float]) -> list[Ratio]:
    """The two figures with targets."""
    peak = {p["cohort"]: p["peak_rss_mb"] for p in points if p["executor"] == "fused" and p["population"] == MILLION}
    overhead = sum(value for stage, value in seconds.items() if stage != "client work")
    return [
        Ratio("peak memory, cohort 10,000 / cohort 100", peak[10_000] / peak[100], None, 1.2, "at most"),
        Ratio("milliseconds of a round outside client work, mlp C=200", 1000 * overhead, None, 5.0, "at most"),
    ]


def curve_table(points: list[Record]) -> Table:
    """All points."""
    made = Table("work", "executor", "cohort", "population", "milliseconds", "peak MiB")
    for p in points:
        counts = (f"{p['cohort']:,}", f"{p['population']:,}", f"{1000 * p['seconds']:.1f}", f"{p['peak_rss_mb']:.0f}")
        made.add_row(p["work"], p["executor"], *counts)
    return made


def stage_table(seconds: dict[str, float]) -> Table:
    """Milliseconds by stage."""
    made = Table("stage of a round, C=200", "milliseconds")
    for stage, value in seconds.items():
        made.add_row(stage, f"{1000 * value:.2f}")
    return made


if __name__ == "__main__":
    main()
