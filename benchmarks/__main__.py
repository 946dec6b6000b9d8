"""``python -m benchmarks``: all systems on the same work, one table, and the ratios with their targets."""

import argparse
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import cases
from benchmarks.measure import Row, Spec, machine, peak_rss_mb, prepare
from benchmarks.ratios import Ratio, ratios, title
from benchmarks.workload import SHAPES, Data, Workload

Record = dict[str, Any]
DATA = "random images in the shape of Fashion-MNIST, 1,000 clients x 50 examples"


def main() -> None:
    """Measure, print and write."""
    arguments = parse()
    console = Console(width=None if os.isatty(1) else 140)
    pfl, ray = (cases.installed(name) and not getattr(arguments, f"no_{name}") for name in ("pfl", "ray"))
    for name, there in {"pfl": pfl, "ray": ray, "jax": cases.installed("jax")}.items():
        if not there:
            console.print(f"{name} is left out: not installed, or not wanted (benchmarks/requirements.txt)")
    rows: list[Record] = []
    for measured in all_rows(arguments, pfl, ray):
        rows += measured
        console.print(table(measured))
        if arguments.json:  # after each, so that an hour's work is not lost with the last of it
            write(arguments.json, rows)
    console.print(verdicts(ratios(rows)), f"{machine()}; {DATA}", sep="\n")


def all_rows(arguments: argparse.Namespace, pfl: bool, ray: bool) -> Iterator[list[Record]]:
    """The rows of each kind of work."""
    for threads in arguments.threads:
        prepare(threads)
        for workload in cases.workloads(arguments.quick):
            if workload.model not in arguments.models:
                continue
            yield case(workload, cases.data_of(workload), threads, arguments.quick, pfl)
        if ray and cases.RAY_WORK.model in arguments.models:
            yield case_with_ray(cases.data_of(cases.RAY_WORK), threads, arguments.quick)


def write(path: Path, rows: list[Record]) -> None:
    """All there is so far."""
    content = {"machine": machine(), "data": DATA, "rows": rows}
    content["ratios"] = [ratio.record() for ratio in ratios(rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, smaller cohorts of the CNN: 5 minutes")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="of PyTorch; several are taken in turn")
    parser.add_argument("--models", nargs="+", choices=list(SHAPES), default=list(SHAPES), help="of the work")
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--no-ray", action="store_true", help="leave out Flower's own simulation")
    parser.add_argument("--no-pfl", action="store_true", help="leave out pfl")
    return parser.parse_args()


def case(workload: Workload, data: Data, threads: int, quick: bool, pfl: bool) -> list[Record]:
    """All rows of one kind of work."""
    specs = cases.specs(workload, data, threads, pfl)
    rows = cases.fastest_limit(cases.measure(specs, data, cases.repeats(workload, quick)))
    wanted = [row.system for row in rows if not quick or with_peak(workload, row.system)]
    found = dict(zip(wanted, peaks([specs[system] for system in wanted]), strict=True))
    return [
        cases.record(workload, threads, replace(row, system=family(row.system)), found.get(row.system)) for row in rows
    ]


def family(system: str) -> str:
    """A system without the way it was tuned: ``limit 2`` and ``JAX scan`` are the limit and JAX."""
    return next((name for name in cases.TUNED if system.startswith(f"{name} ")), system)


def with_peak(workload: Workload, system: str) -> bool:
    """Whether a quick run takes the peak memory too, which needs a fresh process."""
    return (
        workload.batch_size == 10 and (workload.cohort == 200 or workload.model != "mlp") and "unmeasured" not in system
    )


def peaks(specs: list[Spec]) -> Iterator[float]:
    """Peak memory of each, side by side: memory does not mind company as time does."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return pool.map(peak_rss_mb, specs)


def case_with_ray(data: Data, threads: int, quick: bool) -> list[Record]:
    """Flower's own simulation, which runs by itself, and fedbatch right before and after it."""
    from benchmarks.systems import flower_ray

    work = cases.RAY_WORK
    specs = {n: s for n, s in cases.specs(work, data, threads, pfl=False).items() if n.startswith("fedbatch")}
    before = cases.measure(specs, data, cases.repeats(work, quick))
    run = flower_ray.run(work, data, rounds=3 if quick else 6, cpus=threads)
    after = cases.measure(specs, data, cases.repeats(work, quick))
    rows = [max(pair, key=lambda row: row.seconds_median) for pair in zip(before, after, strict=True)]  # to be fair
    warm = run.warm_seconds
    ray = Row("Flower on Ray", median(warm), min(warm), max(warm), run.cpu_seconds)
    cold = Row("Flower on Ray, first round", *[run.cold_seconds] * 3, None)
    ours = [cases.record(work, threads, row, None) for row in rows]
    return [*ours, *(cases.record(work, threads, row, run.peak_rss_mb) for row in (ray, cold))]


def table(rows: list[Record]) -> Table:
    """Rows of one kind of work."""
    made = Table("system", *["milliseconds", "least", "most", "CPU", "peak MiB"], title=title(rows[0]))
    for row in rows:
        seconds = [row[name] for name in ("seconds_median", "seconds_min", "seconds_max", "cpu_seconds")]
        milliseconds = ["" if value is None else f"{1000 * value:.1f}" for value in seconds]
        made.add_row(row["system"], *milliseconds, "" if row["peak_rss_mb"] is None else f"{row['peak_rss_mb']:.0f}")
    return made


def verdicts(found: list[Ratio]) -> Table:
    """Ratios of medians and whether they reach their targets."""
    made = Table("ratio", "value", "of CPU", "target", "")
    for ratio in found:
        made.add_row(
            ratio.name, f"{ratio.ratio:.2f}", f"{ratio.cpu_ratio:.2f}", f"{ratio.bound} {ratio.target:g}", ratio.verdict
        )
    return made


if __name__ == "__main__":
    main()
