"""Generated configs: each runs to scores that can be, or is refused in one line; never a traceback, never for ever."""

import json
import logging
import random
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fedbatch.cli import app
from fedbatch.config.compose import config_dir
from fedbatch.config.ranges import range_of
from fedbatch.setup import task

ROOT = Path(config_dir())
BASE = {
    "dataset": "digits",
    "population": "20",
    "cohort_size": "4",
    "client_batch_size": "4",
    "model": "mlp",
    "controller": "fixed",
    "rounds": "2",
    "report": "none",
}
SKIPPED = {"experiment", "tracker", "runtime"}  # what starts processes or writes elsewhere
NEVER = {"run_dir", "report", "hydra", "defaults", "matmul_precision", "compile", "deterministic"}
NUMBERS = [
    "0",
    "-1",
    "1",
    "2",
    "3",
    "7",
    "0.5",
    "0.999",
    "1.5",
    "1e-12",
    "1e-3",
    "40",
    "1e30",
    "1e308",
    "inf",
    "-inf",
    "nan",
]
WORDS = ["abc", "null", "[1]", "{a:1}", "true", "''", "'[/a]'", "'ü b'", "../x", "[]", "auto", "-", "'a,b'"]
LARGE = ["1e4", "1e6", "1e12"]  # only where they are not a size that a run would honour
SIZES = {
    "width",
    "depth",
    "layers",
    "hidden",
    "channels",
    "groups",
    "code",
    "heads",
    "rounds",
    "epochs",
    "steps",
    "threads",
    "nodes",
}
CASES, SECONDS = 520, 10


def leaves(node, key):
    if isinstance(node, dict):
        for name, value in node.items():
            if not str(name).startswith("_"):
                yield from leaves(value, f"{key}.{name}".removeprefix("."))
    else:
        yield key


def keys_of(path, group=""):
    return [
        key for key in leaves(OmegaConf.to_container(OmegaConf.load(path)), group) if key.split(".")[0] not in NEVER
    ]


MAIN = keys_of(ROOT / "config.yaml")
CHOICES = {
    g.name: sorted(p.stem for p in g.glob("*.yaml")) for g in ROOT.iterdir() if g.is_dir() and g.name not in SKIPPED
}


def value_for(rng, key):
    kind = rng.random()
    if kind < 0.25:
        return rng.choice(WORDS)
    if kind < 0.35 and key.split(".")[-1] not in SIZES:
        return rng.choice(LARGE)
    allowed = range_of(key)
    inside = [n for n in NUMBERS if allowed and float(n) in allowed and float(n) <= 40]
    return rng.choice(inside if inside and kind < 0.7 else NUMBERS)


def overrides(seed):
    """A base run with up to two other parts and one to three other values."""
    rng = random.Random(seed)
    chosen = dict(BASE)
    keys = list(MAIN)
    for group in rng.sample(sorted(CHOICES), rng.choice([0, 1, 1, 2])):
        chosen[group] = rng.choice([*CHOICES[group], rng.choice(WORDS)] if rng.random() < 0.1 else CHOICES[group])
        path = ROOT / group / f"{chosen[group]}.yaml"
        whole = path.is_file() and path.read_text().startswith("# @package _global_")
        keys += 3 * keys_of(path, "" if whole else group) if path.is_file() else []
    if chosen["model"] == "resnet18":
        chosen["model.width"] = "8"  # eleven million parameters take a while, and that is no fault
    for key in rng.sample(keys, rng.choice([1, 1, 2, 3])):
        chosen[key] = value_for(rng, key)
    return [f"{name}={value}" for name, value in chosen.items() if name != "resume"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(CASES))
def test_runs_or_is_refused_in_one_line(seed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fedbatch", *overrides(seed), "run_dir=out"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    start = time.process_time()
    try:
        app.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        logging.getLogger("fedbatch").setLevel(logging.NOTSET)
        task.forget()
    shown, told = capsys.readouterr(), f"{' '.join(overrides(seed))}"
    assert time.process_time() - start < SECONDS, told
    if code:
        assert code in (1, 2) and shown.err.startswith("fedbatch: ") and shown.err.count("\n") == 1, (
            f"{told}\n{shown.err}"
        )
        assert "internal" not in shown.err, f"{told}\n{shown.err}"
        return
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    for name in ("test_accuracy", "test_loss"):
        assert isinstance(summary[name], float) and summary[name] == summary[name], told
    assert 0 <= summary["test_accuracy"] <= 1 and 0 <= summary["test_loss"] < float("inf"), told
