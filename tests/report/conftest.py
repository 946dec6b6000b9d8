"""Run folders written by hand, with numbers that a page can be asked for."""

import json
from pathlib import Path

import pytest

from fedbatch.results.store import RunStore

NAN = float("nan")


def row(i, **more):
    """Round i: accuracy 0.1 i in every second round, noise scale open above at first, a switch after round 3."""
    tested = i % 2 == 1
    return {
        "round": i,
        "rounds": i + 1,
        "phase": "small" if i < 3 else "large",
        "switch": "noise scale 9 > 4" if i == 2 else "",
        "lr": 0.1,
        "cohort_size": 2,
        "global_batch": 4 if i < 3 else 16,
        "train_loss": 2.0 / (i + 1),
        "test_loss": 1.5 / (i + 1) if tested else NAN,
        "test_accuracy": 0.1 * i if tested else NAN,
        "noise_scale": 3.0 + i,
        "noise_scale_low": 2.0,
        "noise_scale_high": float("inf") if i == 0 else 20.0,
        "noise_scale_unit": "examples",
        "examples": 10 * (i + 1),
        "bytes_up": 100 * (i + 1),
        "bytes_down": 200 * (i + 1),
        "simulated_seconds": 0.5 * (i + 1),
        "measured_seconds": 0.1 * (i + 1),
        "plan_seconds": 0.25,
        "client_seconds": 0.5,
        **more,
    }


EVERYTHING = {
    "epsilon_rdp": 1.0,
    "labels_used": 7,
    "test_ece": 0.1,
    "trust_ratio_min": 0.01,
    "trust_ratio_median": 0.1,
    "trust_ratio_max": 1.0,
    "attention_logit_max": [[0.5, 2.0], [1.0, 0.25]],
    **{f"client_accuracy_p{q}": q / 100 for q in (5, 25, 50, 75, 95)},
}
BINS = {"count": [0.0, 4.0], "confidence": [0.0, 3.0], "correct": [0.0, 2.0]}
CALIBRATION = {stage: {"test": {"ece": 0.25, "bins": BINS}} for stage in ("before", "after")}

PRIVACY = {
    "epsilon": 2.0,
    "epsilon_rdp": 2.5,
    "planned_epsilon": 2.0,
    "delta": 1e-5,
    "unit": "example",
    "neighbours": "data sets that differ by one example",
    "protects_against": "those who see the models",
    "sampler": "Poisson",
    "schedule": [{"sample_rate": 0.1, "noise_multiplier": 1.0, "steps": 6}],
    "accountant": "pld",
    "accountant_version": "dp-accounting",
    "releases": 6,
    "not_covered": ["choosing hyperparameters"],
}


@pytest.fixture
def write_run(make_config):
    """``write_run("a", *overrides, columns={}, summary={})``: a finished run of six rounds. Columns may be of i."""

    def write(name, *overrides, rounds=6, columns=None, summary=None) -> Path:
        config = make_config(*overrides, folder=name)
        store = RunStore(Path(config.run_dir), config)
        with store.recording(0):
            for i in range(rounds):
                store.append(row(i, **(columns(i) if callable(columns) else columns or {})))
        said = json.loads((store.folder / "summary.json").read_text())
        last = {"status": "finished", "noise_scale": 8.0, "noise_scale_low": 2.0, "noise_scale_high": 20.0}
        (store.folder / "summary.json").write_text(json.dumps(said | last | (summary or {})))
        return store.folder

    return write
