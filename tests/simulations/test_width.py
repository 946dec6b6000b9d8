import math

import numpy as np
import polars as pl
import pytest
import torch


@pytest.fixture
def diversity():
    from simulations import diversity

    return diversity


def test_diversity_is_the_plug_in_ratio_of_all_gradients_without_its_bias(diversity):
    family = diversity.Family("tanh", 4, 3, 3)
    generator = torch.Generator().manual_seed(5)
    student, teacher = family.draw(generator), family.draw(generator)
    x = torch.randn(500, 4, generator=generator)
    target = family.forward(teacher, x)
    rows = []
    for i in range(500):
        own = {name: w.clone().requires_grad_() for name, w in student.items()}
        (0.5 * (family.forward(own, x[i]) - target[i]) ** 2).backward()
        rows.append(torch.cat([w.grad.flatten() for w in own.values()]))
    g = torch.stack(rows).double()
    noise = g.var(dim=0).sum()
    expected = 1 + noise / (g.mean(0).square().sum() - noise / 500)
    assert diversity.diversity(family, 5, probes=500) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("width", [5, 10, 50])
def test_two_linear_layers_have_the_closed_form(diversity, width):
    family = diversity.Family("linear", 50, width, 2, scaled=False, teacher=False)
    drawn = [diversity.diversity(family, seed, probes=2000) for seed in range(30)]
    assert np.median(drawn) == pytest.approx(diversity.two_layer(width, 50), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("teacher", [False, True])
def test_deep_linear_networks_approach_the_closed_form(diversity, teacher):
    family = diversity.Family("linear", 128, 128, 3, teacher=teacher)
    drawn = [diversity.diversity(family, seed, probes=2000) for seed in range(10)]
    assert np.median(drawn) == pytest.approx(diversity.deep(128, 3, teacher), rel=0.1)


def test_a_batch_between_two_that_were_tried():
    from simulations.width import largest_batch

    assert largest_batch([8, 32], [100.0, 110.0]) == 32
    assert math.isnan(largest_batch([8, 32], [100.0, math.nan]))
    assert largest_batch([8, 32, 128], [100.0, 100.0, 144.0]) == pytest.approx(64, rel=0.01)


def test_sizes_of_what_is_compared_are_equal():
    from simulations.width import PARAMETERS, WIDTHS

    for layers in (2, 4, 16):
        assert layers * round(math.sqrt(PARAMETERS / layers)) ** 2 == pytest.approx(PARAMETERS, rel=0.03)
    sizes = [(64 + 1) * k + (depth - 1) * (k * k + k) + 10 * (k + 1) for depth, k in WIDTHS.items()]
    assert max(sizes) / min(sizes) < 1.06


@pytest.mark.slow
def test_the_quick_form(tmp_path, capsys):
    from simulations import width

    width.main(["--quick", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)])
    assert pl.read_parquet(tmp_path / "results" / "width_training.parquet")["steps"].is_finite().any()
    assert "largest batch within 1.2 x" in capsys.readouterr().out
