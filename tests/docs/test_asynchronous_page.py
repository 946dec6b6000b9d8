"""What is written on the page about asynchronous rounds runs, and its table has the defaults."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from tests.conftest import run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "asynchronous.md").read_text()


def test_factors_of_ones_own_run(tmp_path, monkeypatch, make_config):
    (tmp_path / "hinge.py").write_text(re.search(r"```python\n(# hinge.py.*?)```", PAGE, re.S)[1])
    monkeypatch.syspath_prepend(tmp_path)
    import hinge

    np.testing.assert_allclose(hinge.Hinge(2, 0.5)(np.array([0, 2, 3, 6])), [1, 1, 2 / 3, 1 / 3])
    node = OmegaConf.to_container(OmegaConf.create(re.search(r"```yaml\n(# conf/asynchronous.*?)```", PAGE, re.S)[1]))
    config = make_config("controller=fixed", "time_model.speed_spread=1.5", "rounds=6")
    rows, _, _ = run(replace(config, asynchronous=node))
    assert max(row["staleness_max"] for row in rows) > 2


def test_the_table_has_the_defaults():
    node = OmegaConf.load(ROOT / "conf" / "asynchronous" / "fedbuff.yaml")
    told = dict(re.findall(r"^\| `asynchronous\.([\w.]+)` \| ([\d.]+) \|", PAGE, re.M))
    assert {name: float(value) for name, value in told.items()} == {
        "concurrency": node.concurrency,
        "max_staleness": node.max_staleness,
        "staleness.exponent": node.staleness.exponent,
    }
