"""Commands that compose a config know parts of one's own, and write beside them."""

import subprocess
import sys

MODEL = """
from torch import nn


def small(input_shape, num_classes, hidden):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))
"""


def said(folder, *words):
    done = subprocess.run(
        [sys.executable, "-m", "fedbatch.cli.app", *words], cwd=folder, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout + done.stderr


def test_a_model_of_ones_own_is_planned_and_the_plan_runs(tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "own_model.py").write_text(MODEL)
    (tmp_path / "mine" / "model" / "small.yaml").write_text("_target_: own_model.small\nhidden: 8\n")
    task = ("dataset=digits", "population=20", "cohort_size=20", "rounds=2", "privacy=example_central", "model=small")
    code, told = said(tmp_path, "plan", "--config-dir", "mine", *task)
    assert code == 0 and "to run it: fedbatch --config-dir=mine --config-name=plan" in told, told
    assert (tmp_path / "mine" / "plan.yaml").exists() and not (tmp_path / "plan.yaml").exists()
    code, told = said(tmp_path, "--config-dir=mine", "--config-name=plan", "run_dir=run", "report=none")
    assert code == 0 and "run folder: " in told, told
    code, told = said(tmp_path, "plan", *task)  # without the folder
    assert code == 2 and "model=small does not exist; choose from " in told
    code, told = said(tmp_path, "doctor", "--config-dir=nowhere", "model=small")
    assert code == 2 and told.startswith("fedbatch: doctor: --config-dir: nowhere is not a folder")
    code, told = said(tmp_path, "audit", "--config-dir=mine", "--config-name=plan")
    assert code == 2 and "--config-name=plan: give the overrides that the file's comment has" in told
