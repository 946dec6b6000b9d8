"""The tables after the last round on the page: read whole, broken, or of something else; and drawn."""

import numpy as np
import polars as pl
import pytest

from fedbatch.core.scores import Scoring
from fedbatch.report.page import write_report
from fedbatch.report.views import views_of
from fedbatch.results.views import write_classes, write_clients
from tests.report.test_browser import browser, drawn, opened, pytestmark  # noqa: F401

TABLE = {"client": np.array([3, 1, 2]), "examples": np.array([5, 5, 5]), "loss": np.ones(3)}


@pytest.mark.parametrize(("better", "first"), [("higher", 1), ("lower", 2)])
def test_tables_are_read_back_the_worst_client_first(tmp_path, better, first):
    write_classes(tmp_path, np.array([[3, 1], [0, 0]]))
    scores = TABLE | {"mine": np.array([0.5, 0.1, 0.9])}
    write_clients(tmp_path, scores, Scoring(("mine",), "mine", better))
    found = views_of(tmp_path, "mine")
    assert found["recall"] == [0.75, None] and found["confusion"] == [[3, 1], [0, 0]]
    assert found["worst"][0][0] == first
    assert "worst" not in views_of(tmp_path, "other") and views_of(tmp_path / "none", "mine") == {}


def test_what_is_broken_or_foreign_is_left_out(tmp_path):
    (tmp_path / "confusion.parquet").write_bytes(b"no table")
    pl.DataFrame({"recall": ["<b>high</b>"]}).write_parquet(tmp_path / "classes.parquet")
    pl.DataFrame({"client": [1]}).write_parquet(tmp_path / "clients.parquet")
    assert views_of(tmp_path, "accuracy") == {}


def test_they_are_drawn(browser, write_run):  # noqa: F811
    folder = write_run("a")
    write_classes(folder, np.diag([5, 6, 7]))
    write_clients(folder, TABLE | {"accuracy": np.array([0.5, 0.1, 0.9])}, Scoring())
    assert opened(browser, write_report([folder])) == []
    charts = drawn(browser)
    assert {"chart-recall", "chart-confusion", "chart-worst"} <= set(charts)
    assert (charts["chart-recall"], charts["chart-worst"]) == (3, 3)
