"""Is what a GPU computes right? Whole runs and single jobs beside a CPU, and what happens where memory ends."""

import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_findings import Check, in_words
from benchmarks.gpu_jobs import MODELS, OPTIONS, job
from fedbatch.executors.choose import EXECUTORS, UNSUPPORTED
from fedbatch.executors.memory import Memory
from fedbatch.results import record, store, views
from fedbatch.wire.messages import Contribution

RUN = "dataset=digits population=20 cohort_size=6 client_batch_size=4 rounds=3 controller=fixed report=none".split()
TEXT = ["dataset=shakespeare_roles", "partitioner=natural", "population=595", "dataset.min_sequences=16"]
NOISE = ["privacy.noise_multiplier=1.0", "privacy.target_epsilon=null"]
RUNS: dict[str, list[str]] = {
    "default": [],
    "scaffold": ["client_work=scaffold"],
    "feddyn": ["client_work=feddyn"],
    "fednova": ["client_work=fednova"],
    "diloco": ["client_work=diloco", "client_work.steps=4"],
    "ditto": ["client_work=ditto", "client_holdout=0.25"],
    "fedper": ["client_work=fedper", "client_holdout=0.25"],
    "local AdamW": ["client_work=local_adamw"],
    "top-k": ["compression=top_k"],
    "QSGD": ["compression=qsgd"],
    "sign": ["compression=sign"],
    "PowerSGD": ["compression=power_sgd"],
    "half": ["compression=half"],
    "flip and crop": ["dataset=fashion_mini", "augment=flip_crop"],
    "muon": ["server_optimizer=muon"],
    "groups": ["noise_scale.groups=4", "noise_scale.every=1"],
    "profiler": ["tracker=profiler", "tracker.profiler.skip=1", "tracker.profiler.rounds=1", "executor=fused"],
    "deterministic": ["deterministic=true"],
    "deterministic local": ["deterministic=true", "client_work=local_sgd"],
    "TF32": ["matmul_precision=high"],
    "bf16": ["precision=bf16"],
    "gpt": [*TEXT, "model=gpt", "model.layers=1", "model.width=16", "model.heads=2", "rounds=2"],
    "cnn": ["model=cnn", "model.channels=8", "model.hidden=16"],
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
    "noise on the device": ["privacy=client_central", *NOISE, "model.width=20000"],
    "active": ["active=margin", "active.queries=1", "active.seed_labels=40", "active.labels_per_query=20"],
    "written down": ["runtime.by_reference=false"],
    "four nodes": ["nodes=4"],
    "compiled": ["compile=true", "executor=loop"],  # takes a minute
}


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
    return 0.3 if run.startswith(("client_", "example_", "noise")) else 0.02 if run in ("TF32", "bf16") else 2e-3


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


@contextmanager
def without_polars() -> Iterator[None]:
    """A run ends without its Parquet files where Polars is not installed."""
    write, tables, packages = record.write_parquet, views._write, store.PACKAGES
    if importlib.util.find_spec("polars") is None:
        record.write_parquet = views._write = lambda *_: None
        store.PACKAGES = tuple(name for name in packages if name != "polars")
    try:
        yield
    finally:
        record.write_parquet, views._write, store.PACKAGES = write, tables, packages
