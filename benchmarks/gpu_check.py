"""All that a GPU should answer, in eight minutes and without a network: ``python -m benchmarks.gpu_check``.

Prints one line a finding and writes ``gpu_check.json`` after every section, so that what is cut off is not lost. Each
section has its share of the seconds. A finding that is wrong has ``FAILS`` in it. Needs torch with CUDA and what
fedbatch imports; Polars may be missing.
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("FEDBATCH_CACHE", tempfile.mkdtemp())
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS at its start; without it no rerun is equal

import numpy as np
import torch

from benchmarks import cases
from benchmarks.gpu_jobs import MODELS, OPTIONS, job
from benchmarks.workload import Workload, random_data
from fedbatch.clients.job import Job
from fedbatch.config.compose import config_json
from fedbatch.config.schema import RunConfig, from_json
from fedbatch.executors.choose import EXECUTORS, UNSUPPORTED
from fedbatch.executors.memory import Memory
from fedbatch.results import record
from fedbatch.setup.device import memory_bytes, prepare
from fedbatch.wire.messages import Contribution

Finding = dict[str, Any]
RUN = "dataset=digits population=20 cohort_size=6 client_batch_size=4 rounds=3 controller=fixed report=none".split()
NOISE = ["privacy.noise_multiplier=1.0", "privacy.target_epsilon=null"]
RUNS: dict[str, list[str]] = {
    "default": [],
    "deterministic": ["deterministic=true"],
    "deterministic local": ["deterministic=true", "client_work=local_sgd"],
    "TF32": ["matmul_precision=high"],
    "cnn": ["model=cnn", "model.channels=8", "model.hidden=16"],
    "compiled": ["compile=true", "executor=loop"],
    "calibration": ["metrics=calibration", "client_holdout=0.25"],
    "temperature": ["temperature=shared", "client_holdout=0.25"],
    "temperature each": ["temperature=per_client", "client_holdout=0.25"],
    "lamb": ["server_optimizer=lamb"],
    "merit": ["server_optimizer=merit"],
    "adamw": ["server_optimizer=adamw"],
    "krum": ["aggregator=krum"],
    "soft ECE": ["loss=ce_sb_ece", "executor=loop"],
    "client_central": ["privacy=client_central", *NOISE],
    "example_local": ["privacy=example_local", *NOISE],
    "example_local ghost": ["privacy=example_local", *NOISE, "executor=ghost"],
    "active": ["active=margin"],
    "written down": ["runtime.by_reference=false"],
    "four nodes": ["nodes=4"],
}


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


def environment(check: Check) -> None:
    """The card and its software."""
    free, total = torch.cuda.mem_get_info()
    check.say(
        "environment",
        card=torch.cuda.get_device_name(),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        free_gib=free / 2**30,
        total_gib=total / 2**30,
        budget_gib=(check.budget() or 0) / 2**30,
    )


def whole_runs(check: Check) -> None:
    """Runs on the device beside those on a CPU: the same loss to rounding, and the same bits twice where asked for."""
    for name, overrides in RUNS.items():
        if check.is_late("whole_runs", name):
            return
        try:
            cpu, first, second = (whole_run(overrides, device) for device in ("cpu", check.device, check.device))
        except Exception as error:
            check.say("whole_runs", run=name, FAILS=in_words(error))
            continue
        loss, again, expected = (float(run["test_loss"]) for run in (first, second, cpu))
        bad = {"FAILS": "loss is another"} if not abs(loss / expected - 1) < tolerance(name) else {}
        equal = first["params_sha256"] == second["params_sha256"]
        if "deterministic" in name and not equal:
            bad = {"FAILS": "reruns differ"}
        check.say("whole_runs", run=name, loss=loss, cpu=expected, again=again / loss - 1, rerun_equal=equal, **bad)


def tolerance(run: str) -> float:
    """Relative difference of losses: rounding, or with noise that depends on rounding its size."""
    return 0.3 if "client_central" in run or "example_local" in run else 0.02 if run == "TF32" else 2e-3


def whole_run(overrides: list[str], device: str) -> dict[str, Any]:
    """The summary of a run."""
    import fedbatch
    from fedbatch.setup import task

    task.forget()
    with tempfile.TemporaryDirectory() as folder:
        result = fedbatch.run(*RUN, *overrides, f"run_dir={folder}/run", f"device={device}", "evaluate_every_rounds=1")
    return result.summary


def correctness(check: Check) -> None:
    """Every executor on the device beside the loop on the CPU in float64."""
    torch.backends.cudnn.allow_tf32 = False
    for name in MODELS:
        for work in ("fedsgd", "local", "proximal"):
            for option, values in OPTIONS.items():
                if (work != "fedsgd" and "halves" in option) or (name == "resnet18" and option != "plain"):
                    continue
                if check.is_late("correctness", f"{name} {work} {option}"):
                    return
                size = {"clients": 3 if name in ("resnet18", "gpt") else 6, "batch": 4, "steps": 2, **values}
                expected = EXECUTORS["loop"](job(name, "cpu", work, dtype=torch.float64, **size))
                usual = errors_of(EXECUTORS["loop"](job(name, "cpu", work, **size)), expected)
                for executor in ("fused", "vmap", "loop"):
                    made = check.job(name, work, **size)
                    if executor in UNSUPPORTED and UNSUPPORTED[executor](made):
                        continue
                    what = {"model": name, "work": work, "option": option, "executor": executor}
                    try:
                        got = EXECUTORS[executor](made)
                    except Exception as error:
                        check.say("correctness", **what, FAILS=in_words(error))
                        continue
                    errors = errors_of(got, expected)
                    # A rectifier that rounding turns off moves the whole by more than rounding itself, on a CPU too.
                    right = all(value < max(1e-4, 2 * usual[column]) for column, value in errors.items())
                    bad = {} if right else {"FAILS": f"further off than on a CPU: {usual}"}
                    check.say("correctness", **what, **errors, **bad)


def errors_of(got: Contribution, expected: Contribution) -> dict[str, float]:
    """Relative differences of a contribution."""
    update, reference = got.update_sum.double().cpu(), expected.update_sum.double()
    return {
        "update": float((update - reference).norm() / reference.norm()),
        "sq_norms": float(np.abs(got.sq_norms / expected.sq_norms - 1).max()),
        "losses": float(np.abs(got.losses / expected.losses - 1).max()),
    }


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


def memory(check: Check) -> None:
    """What does not fit is halved, with the same answer; and memory comes back."""
    made = check.job("cnn", "fedsgd", 200, uneven=False)
    expected = EXECUTORS["fused"](made)
    torch.cuda.empty_cache()
    used, total = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, (used + 2**30) / total))
    try:
        got = Memory().run(EXECUTORS["fused"], replace(made, memory_bytes=2.0**40), "cnn")
        error = float((got.update_sum - expected.update_sum).norm() / expected.update_sum.norm())
        bad = {} if error < 1e-5 else {"FAILS": "another answer"}
        check.say("memory", difference=error, left_mib=(torch.cuda.memory_allocated() - used) / 2**20, **bad)
    except Exception as error:
        check.say("memory", FAILS=in_words(error))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


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


def in_words(error: Exception) -> str:
    """An error in one line, with the line of fedbatch that it comes from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/fedbatch/" in f.filename]
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}: {' '.join(str(error).split())[:200]}"


@contextmanager
def without_polars() -> Iterator[None]:
    """A run ends without its Parquet file where Polars is not installed."""
    write = record.write_parquet
    if importlib.util.find_spec("polars") is None:
        record.write_parquet = lambda *_: None
    try:
        yield
    finally:
        record.write_parquet = write


NEED_A_GPU = (environment, waits, memory, sizes)
SECTIONS: dict[Callable[[Check], None], float] = {
    environment: 0.02,
    whole_runs: 0.25,
    correctness: 0.45,
    waits: 0.62,
    memory: 0.66,
    table: 0.84,
    sizes: 1.0,
}
"""In their order, and the share of all seconds by which each has to end."""


def main() -> int:
    """Run the sections; the number of findings that fail."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--seconds", type=float, default=440)
    parser.add_argument("--only", default="", help="sections, with commas between")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    check = Check(arguments.device, arguments.seconds, arguments.out)
    prepare(config_of(arguments.device))
    with without_polars():
        for section, share in SECTIONS.items():
            if arguments.only and section.__name__ not in arguments.only.split(","):
                continue
            if section in NEED_A_GPU and not check.is_gpu:
                continue
            check.deadline = check.begun + share * arguments.seconds
            try:
                section(check)
            except Exception as error:
                traceback.print_exc()
                check.say(section.__name__, FAILS=in_words(error))
            (check.out / "gpu_check.json").write_text(json.dumps(check.found, indent=1, default=str) + "\n")
    fails = [(name, finding) for name, findings in check.found.items() for finding in findings if "FAILS" in finding]
    print(f"{len(fails)} findings fail", *(f"  {name}: {finding}" for name, finding in fails), sep="\n")
    return min(len(fails), 1)


if __name__ == "__main__":
    sys.exit(main())
