"""NumPy files whose training inputs stay on disk: the bits of the same data in memory, and the memory of a few rows."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedbatch.core.errors import ConfigError, RunFailedError
from fedbatch.data.arrays import arrays
from fedbatch.privacy.data_digest import DataDigests
from fedbatch.server import checkpoint
from fedbatch.setup import task
from fedbatch.setup.nodes import on_own_data
from tests.conftest import run

SMALL = ("population=6", "cohort_size=4", "client_batch_size=4", "rounds=3", "model=mlp", "model.width=8")
IN_MEMORY = """
import numpy as np
from fedbatch.data.dataset import Dataset

def table():
    x, y, test_x, test_y = (np.load(f"{folder}/{{name}}.npy") for name in ("train_x", "train_y", "test_x", "test_y"))
    if x.dtype == np.uint8:
        x, test_x = (each.astype(np.float32) * np.float32(1 / 255) for each in (x, test_x))
    return Dataset("own", x, y, test_x, test_y, 3)
"""


def write(folder, x, y, **more):
    """Files of which the last 20 rows are the test split."""
    folder.mkdir(exist_ok=True)
    split = {"train_x": x[:-20], "train_y": y[:-20], "test_x": x[-20:], "test_y": y[-20:]}
    for name, values in {**split, **more}.items():
        np.save(folder / f"{name}.npy", values)
    return folder


@pytest.fixture
def numbers():
    rng = np.random.default_rng(0)
    return rng.normal(size=(140, 5)).astype(np.float32), rng.integers(0, 3, 140)


@pytest.fixture(autouse=True)
def forget():
    task.forget()
    yield
    task.forget()


def of_arrays(folder, *more):
    return ("dataset=arrays", f"dataset.source={folder}", "dataset.num_classes=3", *more)


SGD = ("controller=fixed",)
PRIVATE = ("privacy.target_epsilon=null", "privacy.noise_multiplier=1.0", "controller=fixed")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("float32", SGD),
        ("uint8", (*SGD, "client_work=local_sgd", "client_work.epochs=2", "client_holdout=0.2")),
        ("float32", ("privacy=example_local", *PRIVATE)),
        ("float32", ("privacy=client_central", *PRIVATE)),
        ("uint8", (*SGD, "executor=loop", "noise_scale.groups=4", "noise_scale.every=1", "training_set_examples=9")),
    ],
)
def test_the_bits_are_those_of_the_same_data_in_memory(make_config, tmp_path, monkeypatch, numbers, kind, settings):
    x, y = numbers
    x, scale = (x, "null") if kind == "float32" else ((np.abs(x) * 80).astype(np.uint8), repr(1 / 255))
    folder = write(tmp_path / "files", x, y)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_mapped", raising=False)
    (tmp_path / "own_mapped.py").write_text(IN_MEMORY.replace("{folder}", str(folder)).replace("{{name}}", "{name}"))
    mapped = make_config(*of_arrays(folder, f"dataset.scale={scale}"), *SMALL, *settings, base=())
    held = replace(mapped, dataset={"_target_": "own_mapped.table"}, run_dir=str(tmp_path / "in_memory"))
    rows, found = [], []
    for config in (mapped, held):
        task.forget()
        rows.append(run(config)[0])
        found.append(checkpoint.load_latest(Path(config.run_dir) / "checkpoints").params)
    if "privacy=example_local" not in settings and "privacy=client_central" not in settings:  # noise is keyed by config
        assert torch.equal(*found)
        losses = [[(row["train_loss"], row.get("training_set_loss")) for row in each] for each in rows]
        assert str(losses[0]) == str(losses[1])
    x_of = [task.load(config.to_json()).train_x for config in (mapped, held)]
    assert torch.equal(x_of[0][torch.arange(120)], x_of[1])


LARGE = """
import os, resource, sys
import numpy as np
folder, gibibytes = sys.argv[1], int(sys.argv[2])
n, width = 10**7, gibibytes * 2**30 // 10**7 // 4
x = np.lib.format.open_memmap(f"{folder}/train_x.npy", mode="w+", dtype=np.float32, shape=(n, width))
x[:50] = np.random.default_rng(0).normal(size=(50, width))
del x
y = np.random.default_rng(1).integers(0, 2, n)
for name, values in {"train_y": y, "test_x": np.ones((4, width), np.float32), "test_y": y[:4]}.items():
    np.save(f"{folder}/{name}.npy", values)
"""
MEASURED = """
import resource, sys
from fedbatch.cli.app import main
try:
    main()
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_file_larger_than_memory_takes_the_memory_of_what_is_drawn(tmp_path):
    subprocess.run([sys.executable, "-c", LARGE, str(tmp_path), "40"], check=True)
    path = tmp_path / "train_x.npy"
    assert path.stat().st_size > 35 * 2**30 > 2**30 > path.stat().st_blocks * 512  # sparse
    overrides = [f"dataset.source={tmp_path}", "dataset.num_classes=2", f"run_dir={tmp_path / 'run'}", "report=none"]
    overrides += ["dataset=arrays", "population=1000", "rounds=3", "controller=fixed", "model=logistic"]
    done = subprocess.run([sys.executable, "-c", MEASURED, *overrides], capture_output=True, text=True, check=False)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["rounds"] == 3, done.stderr
    peak = int(re.search(r"peak (\d+)", done.stdout)[1])
    assert peak < 1.5 * 2**20, f"{peak / 2**20:.2f} GiB"


def test_a_resumed_run_is_told_other_data_and_not_another_place(make_config, tmp_path, numbers):
    x, y = numbers
    config = make_config(*of_arrays(write(tmp_path / "a", x, y)), *SMALL, *SGD, base=())
    run(config)
    for changed in (x + (np.arange(len(x)) == 3)[:, None].astype(np.float32), x[::-1]):
        write(tmp_path / "a", changed, y)
        task.forget()
        with pytest.raises(ConfigError, match="the data have changed since this run started"):
            run(replace(config, resume=config.run_dir, rounds=4))
    shutil.rmtree(tmp_path / "a")
    write(tmp_path / "a", x, y)
    task.forget()
    assert run(replace(config, resume=config.run_dir, rounds=4))[1]["rounds"] == 4


@pytest.mark.parametrize(
    ("changed", "override", "told"),
    [
        (
            {"train_x": np.zeros((120, 5))},
            "seed=0",
            "train_x is float64, and converting it would read all of it; write",
        ),
        ({"train_x": np.zeros((120, 5), ">f4")}, "seed=0", "train_x is >f4, and converting it"),
        ({"train_x": np.zeros((120, 5), np.uint8)}, "seed=0", r"train_x is uint8 and needs dataset\.scale"),
        ({}, "dataset.scale=0.5", r"dataset\.scale is for inputs of uint8, and train_x is float32"),
        (
            {f"{split}_x": np.zeros(n, np.float32) for split, n in (("train", 120), ("test", 20))},
            "seed=0",
            r"train_x has shape \(120,\); one number an example",
        ),
        ({"train_x": np.zeros((119, 5), np.float32)}, "seed=0", "train_x has 119 examples and train_y 120"),
        ({"train_x": np.zeros((120, 4), np.float32)}, "seed=0", "an example of train_x has shape"),
        ({"train_x": np.full((120, 5), np.nan, np.float32)}, "seed=0", "train_x is not a finite number in row 0"),
        ({"train_y": np.arange(120)}, "seed=0", r"train_y runs from 0 to 119"),
        ({"owner": np.zeros(5)}, "seed=0", r"owner has shape \(5,\)"),
        ({}, "active=random", "active: a query reads all inputs"),
        ({}, "dataset.num_classes=null", "num_classes is missing"),
    ],
)
def test_what_cannot_be_read_row_by_row_is_refused_in_one_line(make_config, tmp_path, numbers, changed, override, told):
    folder = write(tmp_path / "files", *numbers, **changed)
    more = ("active.queries=1",) if override.startswith("active") else ()
    with pytest.raises(ConfigError, match=told) as error:
        run(make_config(*of_arrays(folder), *SMALL, *SGD, override, *more, base=()))
    assert "\n" not in str(error.value)


def test_files_that_are_not_there_or_no_arrays_are_named(tmp_path, numbers):
    folder = write(tmp_path / "files", *numbers)
    (folder / "test_y.npy").unlink()
    with pytest.raises(ValueError, match=r"^dataset\.source: .*files has no test_y\.npy; it must be a folder with"):
        arrays(str(folder))
    (folder / "test_y.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"^dataset\.source: .*test_y\.npy cannot be read as a NumPy array"):
        arrays(str(folder))
    write(folder, *numbers)
    cut = (folder / "train_x.npy").read_bytes()[:-8]
    (folder / "train_x.npy").write_bytes(cut)
    with pytest.raises(ValueError, match=r"^dataset\.source: .*train_x\.npy cannot be read as a NumPy array"):
        arrays(str(folder))


def test_a_value_that_is_not_finite_ends_the_run_that_draws_it(make_config, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3020, 5)).astype(np.float32), rng.integers(0, 3, 3020)
    x[[1000, 1001, 1002, 1003], 2] = np.nan  # some of them are not among the rows that are looked at first
    looked_at = np.unique(np.linspace(0, 2999, 1000).astype(np.int64))
    x[looked_at] = 0
    config = make_config(*of_arrays(write(tmp_path / "files", x, y)), *SMALL, *SGD, "client_batch_size=400", base=())
    with pytest.raises(RunFailedError, match=r"not finite, or a negative token, in row 100[0-3]"):
        task.load(config.to_json()).train_x[torch.arange(900, 1100)]
    with pytest.raises(RunFailedError):
        run(config)


def test_digests_of_clients_are_those_of_memory(make_config, tmp_path, numbers):
    held = task.load(make_config(*of_arrays(write(tmp_path / "files", *numbers)), *SMALL, *SGD, base=()).to_json())
    positions = np.array([5, 3, 80])
    in_memory = torch.from_numpy(numbers[0][:120])
    one, other = (DataDigests()(x, held.train_y, None, 0, "train", positions) for x in (held.train_x, in_memory))
    assert one == other


def test_a_node_reads_a_folder_of_its_own(make_config, tmp_path, numbers):
    server, own = write(tmp_path / "server", *numbers), write(tmp_path / "own", numbers[0] + 1, numbers[1])
    config = make_config(*of_arrays(server), *SMALL, *SGD, "nodes=2", base=())
    node_config = {"partition-id": 1, "num-partitions": 2, "data": str(own)}
    held = task.load(on_own_data(config, node_config).to_json())
    assert len(held.partition) == 6
    positions = held.partition.lookup(np.full(4, 5), np.arange(4))
    assert np.array_equal(held.examples(positions)[0].numpy(), numbers[0][positions] + 1)


def test_owners_are_clients(make_config, tmp_path, numbers):
    owner = np.array(["b", "a", "c", "a"] * 30)
    folder = write(tmp_path / "files", *numbers, owner=owner)
    config = make_config(*of_arrays(folder), "partitioner=natural", "population=3", "cohort_size=3", *SGD, base=())
    held = task.load(config.to_json())
    sizes = held.partition.sizes(np.arange(3))
    assert sorted(sizes.tolist()) == [30, 30, 60]
