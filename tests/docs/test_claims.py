"""The pages on other papers' claims have the tables that their rows give, and answer in their first sentence."""

import importlib
import re
from pathlib import Path

import polars as pl
import pytest

DOCS = Path(__file__).parents[2] / "docs"
STUDIES = {
    "soft_calibration": "soft_calibration",
    "critical_cohort": "critical_cohort",
    "depth": "width",
    "cluster_margin": "cluster_margin",
    "cartpole": "cartpole",
    "large_batch_optimizers": "large_batch_optimizers",
    "dp_language": "dp_language",
}
"""Name of each study, and of its page."""


@pytest.mark.parametrize("name, page", STUDIES.items())
def test_tables_are_those_of_the_committed_rows(name, page):
    report = importlib.import_module(f"simulations.{name}_report")
    told = (DOCS / "results" / f"{name}.md").read_text()
    assert report.markdown(pl.read_parquet(DOCS / "results" / f"{name}.parquet")) == told
    first = re.search(r"(^\|.*\n)+", told, re.M)[0]
    assert first in (DOCS / f"{page}.md").read_text()


@pytest.mark.parametrize("page", STUDIES.values())
def test_the_first_sentence_answers(page):
    first = (DOCS / f"{page}.md").read_text().split("\n\n")[1]
    assert re.search(r"\*\*(holds|does not hold|cannot be told|.* holds?)\b.*\*\*", first, re.S), first
