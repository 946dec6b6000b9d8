"""A node whose data are not what the server's are: the run says which node, which column, and what to do."""

import numpy as np
import polars as pl
import pytest

from fedbatch import client_app
from fedbatch.api import configured, execute
from fedbatch.core.errors import ConfigError
from fedbatch.runtime.local import LocalGrid
from fedbatch.setup import task
from simulations.deployment.hospitals import FEATURES, write_hospitals

WORDS = pl.when(pl.col.label == 1).then(pl.lit("benign")).otherwise(pl.lit("malignant"))  # sorted, the other way round
TOWNS = pl.Series("m5", ["Ulm", "Bonn"] * 200)


@pytest.fixture
def places(tmp_path):
    return write_hospitals(tmp_path)


def run(places, tmp_path, data, change=None):
    """The run of two hospitals; ``change`` is made to the tables of ``data``, the second one's folder."""
    for path in data.glob("*.csv") if change else ():
        change(pl.read_csv(path)).write_csv(path)
    options = f"dataset=hugging_face dataset.source={places[0]} dataset.input_column=[{','.join(FEATURES)}] nodes=2 "
    options += "population=2 sampling=all cohort_size=2 client_batch_size=64 model=logistic controller=fixed rounds=1"
    config = configured((*options.split(), f"run_dir={tmp_path / 'run'}"), {})
    grid = LocalGrid(client_app.app, 2, {"config": config.to_json()}, by_reference=False)
    for context, folder in zip(list(grid._contexts.values()), (places[1], data), strict=True):
        context.node_config["data"] = str(folder)
    try:
        execute(config, grid)
    finally:
        task.forget()


@pytest.mark.parametrize(
    "change",
    [
        None,
        lambda table: table.with_columns(label=pl.col.label.cast(pl.String) + ".0"),
        lambda table: table.with_columns(label=pl.col.label == 1),
    ],
    ids=["the same", "numbers with a point", "truth values"],
)
def test_the_same_classes_however_they_are_written_are_taken(places, tmp_path, change):
    run(places, tmp_path, places[2], change)
    assert (tmp_path / "run" / "summary.json").is_file()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.with_columns(label=WORDS), r"label is 2 classes \(\w+\) there and 2 classes \(\w+\) here; write"),
        (lambda t: t.with_columns(label=pl.col.label + 1), r"label is 2 classes .* there and 2 classes .* here"),
        (lambda t: t.with_columns(label=pl.col.label + (pl.col.m0 > 15)), r"label is 3 classes .* there and 2 classes"),
        (lambda t: t.with_columns(TOWNS[: len(t)]), r"m5 is 2 categories \(\w+\) there and numbers here"),
    ],
    ids=["words in another order", "numbered from one", "one class more", "towns in place of numbers"],
)
def test_numbers_that_stand_for_something_else_are_refused(places, tmp_path, change, said):
    with pytest.raises(ConfigError, match=rf"node 3 \(client 1\): {said}"):
        run(places, tmp_path, places[2], change)


def test_data_that_cannot_be_read_name_the_node_by_its_partition(places, tmp_path):
    renamed = {"m3": "m30"}
    with pytest.raises(ConfigError, match="node 3 cannot start: .*partition-id 1: dataset: .* has no column m3, only"):
        run(places, tmp_path, places[2], lambda table: table.rename(renamed))
    (tmp_path / "empty").mkdir()
    for folder, why in (
        (tmp_path / "empty", "doesn't contain any data files"),
        (tmp_path / "nowhere", "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=f"partition-id 1: dataset.source={folder} cannot be read: .*{why[:5]}"):
            run(places, tmp_path, folder)


def test_a_model_of_another_size_is_said_before_the_first_round(places, tmp_path):
    """Arrays bear no names: a node with more measurements is known by its model."""
    rng = np.random.default_rng(0)

    def write(folder, width):
        folder.mkdir()
        for split, rows in (("train", 80), ("test", 20)):
            np.save(folder / f"{split}_x.npy", rng.normal(size=(rows, width)).astype(np.float32))
            np.save(folder / f"{split}_y.npy", np.arange(rows) % 2)
        return folder

    server, first, second = (write(tmp_path / f"arrays-{i}", width) for i, width in enumerate((5, 5, 6)))
    options = "dataset=arrays dataset.num_classes=2 nodes=2 population=2 sampling=all cohort_size=2 model=logistic "
    options += f"client_batch_size=8 controller=fixed rounds=1 dataset.source={server} run_dir={tmp_path / 'run'}"
    config = configured((*options.split(),), {})
    grid = LocalGrid(client_app.app, 2, {"config": config.to_json()}, by_reference=False)
    for context, folder in zip(list(grid._contexts.values()), (first, second), strict=True):
        context.node_config["data"] = str(folder)
    with pytest.raises(
        ConfigError, match=r"node 3 \(client 1\): the model is 14 parameters there and 12 parameters here"
    ):
        execute(config, grid)
    task.forget()
