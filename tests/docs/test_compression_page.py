"""The stage on the page is TernGrad and runs; the table's bytes and biases are what the stages declare."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fedbatch.compression import Compression
from fedbatch.models.flat import FlatModel
from tests.conftest import run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compression.md").read_text()
CODE = re.search(r"```python\n(# terngrad.py.*?)```", PAGE, re.S)[1]
YAML = re.search(r"```yaml\n(# conf/compression/terngrad.yaml.*?)```", PAGE, re.S)[1]


def test_the_example_is_terngrad_and_runs(tmp_path, monkeypatch, make_config):
    (tmp_path / "terngrad.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    import terngrad

    chain = Compression({"a": terngrad.TernGrad()})
    vector = torch.linspace(-2, 1, 9)
    found = torch.stack([chain.decode(chain.encode(vector, k), 9, torch.float32, k) for k in range(2000)])
    assert set(found.unique().tolist()) <= {-2.0, 0.0, 2.0}
    sent = (found != 0).double().mean(dim=0).numpy()  # with probability |v| / m
    np.testing.assert_allclose(sent, np.abs(vector.numpy()) / 2, atol=4.5 * 0.5 / 2000**0.5)
    config = make_config("controller=fixed", "rounds=2")
    config = replace(config, compression=OmegaConf.to_container(OmegaConf.create(YAML)))
    rows, _, _ = run(config)
    assert all(row["compression_variance"] > 0 for row in rows)


@pytest.mark.parametrize("name", ["top_k", "rand_k", "qsgd", "sign", "power_sgd", "half"])
def test_the_table_is_what_stages_declare(name):
    layer = FlatModel(torch.nn.Linear(300, 200, bias=False))
    d, node = 60_000, OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "compression" / f"{name}.yaml"))
    chain = instantiate(node, _convert_="all").on_model(layer)
    share = node["stages"].get(name, {}).get("share", 0)
    numbers = {
        "top_k": 8 * share * d,
        "rand_k": 4 * share * d,
        "qsgd": d * 4 / 8 + 4 * -(-d // 512),
        "sign": d / 8 + 4,
        "power_sgd": 4 * 2 * (200 + 300),
        "half": 2 * d,
    }
    assert chain.num_bytes(d, torch.float32) == numbers[name]
    row = re.search(rf"^\| `{name}` \|.*\| (biased|unbiased) \|", PAGE, re.M)
    assert (row[1] == "unbiased") == next(iter(chain.stages.values())).is_unbiased
