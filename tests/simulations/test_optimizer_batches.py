"""Sums along a run by hand, and the quick form."""

import numpy as np
import polars as pl
import pytest

from simulations import optimizer_batches as study


def test_rounds_whose_scale_is_not_known_count_as_noise():
    # 1 / (1 + 32/32) + 1 / (1 + 96/32) + 0 + 0, and the rest of 4 rounds of 32
    s_min, e_min = study.of_run(np.array([32.0, 96.0, np.inf, np.nan]), 32.0)
    assert (s_min, e_min) == (0.75, 32 * 3.25)


def test_every_optimizer_has_a_config_of_its_own():
    for rate, overrides in study.OPTIMIZERS.values():
        assert rate > 0 and overrides[0].startswith("server_optimizer=")


@pytest.mark.slow
def test_quick_form(tmp_path):
    study.main(["--quick", "--out", str(tmp_path)])
    rows = pl.read_parquet(tmp_path / "results" / "optimizer_batches.parquet")
    assert rows["optimizer"].unique(maintain_order=True).to_list() == ["SGD, momentum", "AdamW"] and len(rows) == 8
    assert rows["b_crit"].is_finite().any() and rows["told_b_half"].is_finite().any()
    assert (tmp_path / "figures" / "optimizer_batches.png").stat().st_size > 10_000
