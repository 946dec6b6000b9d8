"""Tables after the last round, against scikit-learn and the clients' own predictions."""

import numpy as np
import polars as pl
import pytest
import torch
from sklearn import metrics

import fedbatch
from fedbatch.core.errors import RunFailedError
from fedbatch.data import digits
from fedbatch.results.views import write_classes
from fedbatch.server import views
from tests.conftest import run


def test_classes_are_told_apart_as_scikit_learn_says(make_config, tmp_path):

    run(make_config("controller=fixed"))
    folder, data = tmp_path / "run", digits()
    with torch.no_grad():
        predicted = fedbatch.load_model(folder)(torch.from_numpy(data.test_x)).argmax(dim=1).numpy()
    found = pl.read_parquet(folder / "confusion.parquet")
    expected = metrics.confusion_matrix(data.test_y, predicted, labels=range(10))
    assert found["count"].to_numpy().reshape(10, 10).tolist() == expected.tolist()
    by_class = pl.read_parquet(folder / "classes.parquet")
    recall = metrics.recall_score(data.test_y, predicted, average=None, labels=range(10))
    assert by_class["recall"].to_list() == pytest.approx(recall.tolist())
    assert by_class["count"].to_list() == np.bincount(data.test_y).tolist()
    assert not (folder / "clients.parquet").exists()


def test_the_worst_client_comes_first(make_config, tmp_path):
    rows, _, _ = run(make_config("controller=fixed", "client_holdout=0.3", "nodes=2", "partitioner=dirichlet"))
    found = pl.read_parquet(tmp_path / "run" / "clients.parquet")
    assert found.columns == ["client", "examples", "loss", "accuracy"] and len(found) <= 20
    assert found["accuracy"].is_sorted() and found["client"].is_unique().all()
    assert np.percentile(found["accuracy"], 50) == pytest.approx(rows[-1]["client_accuracy_p50"])


def test_where_nodes_do_not_answer_any_more_the_run_ends_well(make_config, tmp_path, monkeypatch, caplog):
    def silent(*_):
        raise RunFailedError("no node gave a valid answer")

    monkeypatch.setattr(views, "ask_clients", silent)
    _, summary, _ = run(make_config("controller=fixed", "client_holdout=0.3"))
    assert summary["status"] == "finished" and "clients.parquet is not written: no node gave" in caplog.text


def test_a_private_run_tells_nothing_of_clients(make_config, tmp_path):
    private = ("privacy=client_central", "privacy.target_epsilon=null", "privacy.noise_multiplier=1.0")
    run(make_config(*private, "client_holdout=0.3", "privacy.accuracy_noise=10", "cohort_size=20", "rounds=2"))
    assert not (tmp_path / "run" / "clients.parquet").exists()


def test_classes_that_are_not_there_have_no_share(tmp_path):
    write_classes(tmp_path, np.array([[3, 1, 0], [0, 0, 0], [0, 2, 0]]))
    found = pl.read_parquet(tmp_path / "classes.parquet")
    assert found["recall"].to_list() == [0.75, None, 0.0] and found["precision"].to_list() == [1.0, 0.0, None]
