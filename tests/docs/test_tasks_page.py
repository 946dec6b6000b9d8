"""The task on the page "Tasks" runs, and the table names choices and columns that are there."""

import re
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

import fedbatch

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tasks.md").read_text()


def test_the_task_of_ones_own_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert len(code.splitlines()) <= 16
    (tmp_path / "top_two.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    found = fedbatch.run(
        *(
            "dataset=digits",
            "task=classification",
            "task._target_=top_two.TopTwo",
            "controller=fixed",
            "report=none",
            "rounds=4",
        ),
        *("population=20", "cohort_size=4", "client_batch_size=4", "client_holdout=0.2", "report=none"),
        run_dir=tmp_path / "run",
    )
    assert 0.1 < found.summary["test_top_two"] <= 1 and found.summary["score"] == "test_top_two"
    assert "client_top_two_p50" in found.rounds.columns and "test_accuracy" not in found.summary


LOSSES = dict(re.findall(r"^\| `(\w+)` \| `\(.*\| `(\w+)` \|$", PAGE, re.M))
COLUMNS = dict(re.findall(r"^\| `(\w+)` \| (`test_.*) \|$", PAGE, re.M))


@pytest.mark.parametrize("choice", ["classification", "language", "regression", "multi_label", "segmentation"])
def test_the_tables_are_what_the_tasks_have(choice):
    loss, columns, task = LOSSES[choice], COLUMNS[choice], instantiate(_node(choice))
    named = re.findall(r"test_\w+", columns)
    assert {*named} == {f"test_{each.name}" for each in task.scores if each.better}
    assert named[0] == f"test_{task.score}"
    assert type(task.loss()).__name__ == OmegaConf.load(ROOT / "conf/loss" / f"{loss}.yaml")._target_.split(".")[-1]


def _node(choice):
    loaded = OmegaConf.load(ROOT / "conf/task" / f"{choice}.yaml")
    return loaded.get("task", loaded)
