"""The algorithm on the page is MimeLite, and runs as the page says; its table is what the parts declare."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fedbatch.clients import work as works
from fedbatch.executors import agreement, vmap
from fedbatch.executors.loop import loop
from tests.clients.quadratic import SIZE, Quadratic
from tests.conftest import run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "algorithms.md").read_text()
CODE = re.search(r"```python\n(# mime.py.*?)```", PAGE, re.S)[1]


def mime_lite(problem, cohorts, lr, beta, steps):
    """Karimireddy et al. (2020b), algorithm 1, with momentum and the lite version."""
    x, m = np.zeros(SIZE), np.zeros(SIZE)
    for cohort in cohorts:
        ends, gradients = [], [problem.gradient(k, x) for k in cohort]
        for k in cohort:
            y = x.copy()
            for _ in range(steps):
                y = y - lr * ((1 - beta) * problem.gradient(k, y) + beta * m)
            ends.append(y)
        x, m = np.mean(ends, axis=0), (1 - beta) * np.mean(gradients, axis=0) + beta * m
    return x


def test_the_example_is_the_published_algorithm(tmp_path, monkeypatch, make_config):
    (tmp_path / "mime.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    import mime

    problem, cohorts = Quadratic(), [[0, 1], [2, 3], [0, 3]] * 5
    work = mime.MimeLite(0.1, None, 4)
    for executor in (loop, vmap.best):
        got = problem.run(work, cohorts, executor)
        np.testing.assert_allclose(got[-1], mime_lite(problem, cohorts, 0.1, 0.9, 4), rtol=1e-10)
    job = problem.job(work, np.arange(4), torch.zeros(SIZE, dtype=torch.float64))
    assert agreement.disagreement(vmap.best, agreement.references(job)) is None
    values = OmegaConf.to_container(
        OmegaConf.create(re.search(r"```yaml\n(# conf/client_work/mime.*?)```", PAGE, re.S)[1])
    )
    assert run(replace(make_config("rounds=2", "executor=vmap"), client_work=values))[1]["rounds"] == 2


def test_the_table_says_what_is_declared():
    rows = [[cell.strip() for cell in line.split("|")[1:5]] for line in PAGE.splitlines() if line.startswith("| `")]
    told = {name: row[1:] for row in rows for name in re.findall(r"`(\w+)`", row[0]) if "=" not in row[0]}
    files = {path.stem: path for path in (ROOT / "conf" / "client_work").glob("*.yaml")}
    assert told.keys() == files.keys()
    for name, (sends, keeps, privacy) in told.items():
        work = instantiate(OmegaConf.load(files[name]), _convert_="all")
        assert bool(sends) == bool(getattr(work, "extras", {})), name
        assert bool(keeps) == bool(getattr(work, "own", {})) or keeps.startswith("("), name
        assert set(privacy.split(", ")) - {"none"} == works.protected(work), name
