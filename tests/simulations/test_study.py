import doctest
import importlib

import polars as pl
import pytest


def test_results_go_where_they_are_asked_to(tmp_path, capsys):
    from simulations.study import ROOT, command

    with command("name", "summary", "small", ["--out", str(tmp_path)]) as study:
        assert not study.quick and study.runs == ROOT / "runs" / "name"
        study.save(pl.DataFrame({"a": [1]}), "_more")
        study.tell("told")
    assert (tmp_path / "results" / "name_more.parquet").is_file() and capsys.readouterr().out == "told\n"
    assert (tmp_path / "results" / "name.md").read_text() == "told" and study.figure().parent.is_dir()


def test_the_quick_form_leaves_nothing_behind():
    from simulations.study import ROOT, command

    with command("name", "summary", "small", ["--quick"]) as study:
        assert study.quick and study.out.is_dir()
        assert ROOT not in study.out.parents and ROOT not in study.runs.parents
    assert not study.out.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("tuning", "tables", "goals", "diversity", "width", "noise_scale_conditions", "depth_models"),
        *("cluster_margin_report", "cartpole_report"),
    ],
)
def test_examples_in_docstrings(name):
    found = doctest.testmod(importlib.import_module(f"simulations.{name}"))
    assert found.attempted and not found.failed


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_rows_of_cells_come_in_their_order_whatever_the_processes(jobs):
    from functools import partial

    from simulations import diversity, width
    from simulations.study import command

    families = [diversity.Family("linear", 4, k, 2) for k in (2, 3, 4)]
    with command("name", "summary", "small", ["--quick", "--jobs", jobs], True) as study:
        rows = study.rows([partial(width.draws, 2, "part", family, 0.0) for family in families])
    assert [(row["width"], row["seed"]) for row in rows] == [(k, seed) for k in (2, 3, 4) for seed in (0, 1)]
