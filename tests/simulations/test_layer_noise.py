"""Layers taken together by kind, and what is read of them, by hand; the quick form."""

import numpy as np
import polars as pl
import pytest

from simulations import layer_noise


def test_layers_of_a_kind_are_their_noise_over_their_signal():
    row = {"layer_traces": [6.0, 2.0, 4.0, 1.0], "layer_grad_sqs": [1.0, 1.0, 2.0, -1.0]}
    kinds = np.array([layer_noise.kind(name) for name in ("LayerNorm", "GroupNorm", "Linear", "Embedding")])
    assert layer_noise.scales(row, kinds) == {"norms": 4.0, "embeddings": None, "other layers": 2.0}


def test_factor_spread_and_correlation_of_the_second_half():
    norms = np.array([9.0, 9.0, 1.0, 2.0, 4.0])
    whole = np.array([1.0, 1.0, 2.0, 4.0, 8.0])
    rows = pl.DataFrame({"model": "m", "seed": 0, "round": range(5), "whole": whole, "norms": norms})
    rows = rows.with_columns(pl.lit(None, pl.Float64).alias(name) for name in layer_noise.KINDS[1:])
    ((model, kind, count, factor, spread, r2),) = layer_noise.compared(rows)
    assert (model, kind, count) == ("m", "norms", 3)
    assert (factor, spread, r2) == (pytest.approx(2), pytest.approx(1), pytest.approx(1))


@pytest.mark.slow
def test_quick_form(tmp_path):
    layer_noise.main(["--quick", "--out", str(tmp_path)])
    rows = pl.read_parquet(tmp_path / "results" / "layer_noise.parquet")
    assert len(rows) == 12 and rows["norms"].is_not_null().any()
    assert (tmp_path / "figures" / "layer_noise.png").stat().st_size > 10_000
