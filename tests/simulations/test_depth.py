import numpy as np
import polars as pl
import pytest
import torch

EXAMPLES = 1437


def rows(slope=-0.5, depths=(1, 2, 4, 8)):
    """Runs by the law S = S_min + E_min (1/B - 1/N), with B_crit = 100 depth^slope, three seeds."""
    found = []
    for depth in depths:
        for seed in range(3):
            critical = 100 * (1 + 0.01 * seed) * depth**slope
            for batch in (8, 32, 128, 512):
                row = {"family": "plain", "depth": depth, "width": 10, "examples": EXAMPLES, "batch": batch}
                row |= {"seed": seed, "tuning": False, "steps": 50 * (1 + critical * (1 / batch - 1 / EXAMPLES))}
                found.append(row | {"told": critical, "b_noise": 2 * critical, "rate": 0.1})
    return pl.DataFrame(found)


def test_the_law_gives_its_critical_batch_and_its_slope_over_depth():
    from simulations.depth_report import by_seed, explained, markdown, slopes

    found = by_seed(rows())
    assert found.filter((pl.col("depth") == 4) & (pl.col("seed") == 0))["b_crit"][0] == pytest.approx(50, rel=1e-6)
    for name in ("b_crit", "told", "noise"):
        np.testing.assert_allclose(slopes(found, name), [-0.5] * 3, atol=1e-6)
    assert explained(found, "noise") == pytest.approx(1)
    assert "plain, by B_crit, search: holds" in markdown(rows())
    assert "plain, by B_crit, search: does not hold" in markdown(rows(slope=0.5))


def test_a_batch_that_did_not_arrive_is_left_out():
    from simulations.depth_report import by_seed

    late = pl.when(pl.col("batch") == 8).then(float("nan")).otherwise(pl.col("steps")).alias("steps")
    found = by_seed(rows().with_columns(late))
    assert np.isnan(found["largest"].to_numpy()).all()
    assert found["b_crit"][0] == pytest.approx(100, rel=1e-6)


def test_networks_of_both_families_have_equal_size_and_train():
    from simulations.depth import CLASSES, FULL, INPUTS, PARAMETERS
    from simulations.depth_models import FAMILIES, network, width_of

    x = torch.randn(500, INPUTS, generator=torch.Generator().manual_seed(0))
    for family in FAMILIES:
        for depth in FULL.networks[family]:
            made = network((INPUTS,), CLASSES, family, depth, width_of(INPUTS, CLASSES, depth, PARAMETERS))
            assert sum(p.numel() for p in made.parameters()) == pytest.approx(PARAMETERS, rel=0.03)
            assert sum(isinstance(layer, torch.nn.Linear) for layer in made.modules()) == depth + 1
            assert 0.1 < float(made(x).detach().std()) < 3, (family, depth)  # neither fades nor blows up
    with pytest.raises(ValueError, match="family must be one of plain, residual"):
        network((INPUTS,), CLASSES, "wide", 2, 8)


@pytest.mark.slow
def test_the_quick_form(tmp_path, capsys):
    from simulations import depth

    depth.main(["--quick", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)])
    found = pl.read_parquet(tmp_path / "results" / "depth.parquet").filter(~pl.col("tuning"))
    assert found["steps"].is_finite().all()
    assert "slope over depth" in capsys.readouterr().out
    assert (tmp_path / "figures" / "depth.png").stat().st_size > 10_000
