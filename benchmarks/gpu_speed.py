"""What a GPU's time goes to: launches and waits, whole rounds beside the limit, and cohorts as large as they come."""

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import cases
from benchmarks.gpu_findings import Check, in_words
from benchmarks.gpu_jobs import MODELS
from benchmarks.workload import Workload, random_data
from fedbatch.executors.choose import EXECUTORS


def waits(check: Check) -> None:
    """Launches and waits of the host in one job, at two cohorts: what grows with the clients is at fault."""
    from torch.profiler import ProfilerActivity, profile

    each = [("fedsgd", "fused"), ("local", "vmap")]
    for name, clients in [(n, c) for n in MODELS for c in ((10, 40) if n in ("gpt", "resnet18") else (10, 100))]:
        for work, executor in each:
            if check.is_late("waits", f"{name} {executor}"):
                return
            made = check.job(name, work, clients, uneven=False)
            call: Callable[[], Any] = lambda made=made, executor=executor: EXECUTORS[executor](made)  # noqa: E731
            seconds = check.seconds_of(call, 3)
            lines = waiting_lines(call)
            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
                call()
                torch.cuda.synchronize()
            events = Counter(event.name for event in profiled.events())
            busy = sum(e.device_time_total for e in profiled.events() if str(e.device_type).endswith("CUDA"))
            launches = sum(count for event, count in events.items() if "LaunchKernel" in event)
            check.say(
                "waits",
                model=name,
                work=work,
                executor=executor,
                clients=clients,
                ms=1e3 * seconds,
                busy_ms=busy / 1e3,
                launches=launches,
                copies=events["cudaMemcpyAsync"],
                waits=sum(lines.values()),
                lines=dict(lines.most_common(6)),
            )


def waiting_lines(call: Callable[[], Any]) -> Counter[str]:
    """The lines at which torch says that the host waits for the device."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return Counter(f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message))


def table(check: Check) -> None:
    """Whole rounds beside the limit and the plain loops, in turn."""
    data = random_data(device=check.device)
    todo = [Workload("fedsgd", "mlp", c) for c in (10, 200, 1000)] + [Workload("fedsgd", "cnn", c) for c in (50, 200)]
    todo += [Workload("local_sgd", "mlp", c) for c in (10, 200)] + [Workload("local_sgd", "cnn", 50)]
    for workload in todo:
        if check.is_late("table", str(workload)):
            return
        what = {"work": workload.work, "model": workload.model, "cohort": workload.cohort}
        try:
            specs = {n: s for n, s in cases.specs(workload, data, 1, pfl=False).items() if "unmeasured" not in n}
            if workload.cohort > 100:  # a loop over so many clients takes longer than there is time
                specs = {name: spec for name, spec in specs.items() if "loop" not in name}
            rows = cases.fastest_limit(cases.measure(specs, data, 5))
        except Exception as error:
            check.say("table", **what, FAILS=in_words(error))
            continue
        for row in rows:
            check.say("table", **what, system=row.system, ms=1e3 * row.seconds_median, least_ms=1e3 * row.seconds_min)


def sizes(check: Check) -> None:
    """Time and memory by budget, and cohorts as large as they come."""
    cohorts = {"mlp": (1000, 100_000), "cnn": (200, 2000), "resnet18": (32, 256), "gpt": (32, 256)}
    for name, both in cohorts.items():
        for clients, budget in [(both[0], 2.0**s) for s in (26, 30, 33)] + [(both[1], 2.0**33)]:
            for work, executor in (("fedsgd", "fused"), ("local", "vmap")):
                if check.is_late("sizes", f"{name} {clients}"):
                    return
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                what = {"model": name, "work": work, "clients": clients, "budget_gib": budget / 2**30}
                try:
                    made = replace(check.job(name, work, clients, uneven=False), memory_bytes=budget)
                    seconds = check.seconds_of(lambda made=made, run=EXECUTORS[executor]: run(made), 2, most=3.0)
                    peak = torch.cuda.max_memory_allocated() / 2**30
                    check.say("sizes", **what, ms=1e3 * seconds, ms_a_client=1e3 * seconds / clients, peak_gib=peak)
                except Exception as error:
                    check.say("sizes", **what, FAILS=in_words(error))
