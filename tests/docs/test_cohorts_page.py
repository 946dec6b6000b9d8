"""What is written on the page about cohorts runs, and its table says what samplers declare."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fedbatch.samplers import Candidates
from tests.conftest import run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cohorts.md").read_text()


def test_parts_of_ones_own_run(tmp_path, monkeypatch, make_config):
    for name in ("smallest", "weekdays"):
        (tmp_path / f"{name}.py").write_text(re.search(rf"```python\n(# {name}.py.*?)```", PAGE, re.S)[1])
    monkeypatch.syspath_prepend(tmp_path)
    import smallest
    import weekdays

    sizes = np.array([9, 2, 7, 2, 2])
    chosen = [smallest.Smallest()(Candidates(np.arange(5), sizes, sizes * np.nan), 2, k).clients for k in range(50)]
    assert {tuple(clients) for clients in chosen} == {(1, 3), (1, 4), (3, 4)}
    week = weekdays.Weekdays()
    assert week.is_there(np.arange(2), np.array([0.0, 5 * 86400.0]), 0).tolist() == [True, False]
    assert week.next_seconds(np.arange(2), 5.5 * 86400.0, 0) == 7 * 86400.0
    config = make_config("controller=fixed", "time_model.compute_seconds_per_example=50000", "rounds=4")
    sampler = OmegaConf.to_container(
        OmegaConf.create(re.search(r"```yaml\n(# conf/sampler/smallest.*?)```", PAGE, re.S)[1])
    )
    rows, _, _ = run(replace(config, sampler=sampler, availability={"_target_": "weekdays.Weekdays"}))
    # A round of four examples lasts 2.3 days: two rounds, a third that ends at the weekend, and a wait for Monday.
    assert [row["cohort_size"] for row in rows] == [4, 4, 0, 4]
    assert rows[3]["waiting_seconds"] > 0 and rows[3]["simulated_seconds"] > 7 * 86400


def test_the_table_says_what_samplers_declare():
    for path in (ROOT / "conf" / "sampler").glob("*.yaml"):
        update = re.search(rf"^\| `{path.stem}` \|[^|]*\| ([^|]*) \|", PAGE, re.M)[1]
        node = OmegaConf.load(path)
        assert update.startswith(
            "as before" if not node else "unbiased" if instantiate(node).is_unbiased else "biased"
        ), path
    for path in (ROOT / "conf" / "availability").glob("*.yaml"):
        assert f"| `{path.stem}` |" in PAGE
