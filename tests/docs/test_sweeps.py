"""The Python on the page of sweeps, run on two runs."""

import re
from pathlib import Path

import pytest

from tests.conftest import run

PAGE = Path(__file__).parents[2] / "docs" / "sweeps.md"


def test_means_by_controller(make_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = {}
    for name, controller in (("a", "fixed"), ("b", "noise_scale_switch")):
        _, summary, _ = run(
            make_config(
                f"controller={controller}", f"cohort_size={4 if name == 'a' else 8}", folder=f"runs/sweep/{name}"
            )
        )
        found[controller] = summary["test_accuracy"]
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    names: dict = {}
    exec(code, names)
    told = dict(names["means"].rows())
    assert sorted(told.values()) == pytest.approx(sorted(found.values())) and len(told) == 2
    assert len(names["rounds"]) == 8
