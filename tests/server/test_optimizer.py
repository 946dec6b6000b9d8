"""The server's step: any torch optimizer, and what a layer-wise one adds to the record."""

import pytest
import torch

from fedbatch.aggregation.sums import DivergedError
from fedbatch.models.flat import FlatModel
from fedbatch.models.linear import mlp
from fedbatch.server.optimizer import ServerOptimizer

TARGETS = {
    "lars": {"_target_": "fedbatch.optim.LARS", "lr": 0.1},
    "lamb": {"_target_": "fedbatch.optim.LAMB", "lr": 0.1},
    "merit": {"_target_": "fedbatch.optim.MERIT", "lr": 0.1},
    "sgd": {"_target_": "torch.optim.SGD", "lr": 0.1},
}


@pytest.mark.parametrize("name", TARGETS)
def test_step_length_and_trust_ratios_are_recorded_for_layerwise_optimizers(name):
    torch.manual_seed(0)
    model = FlatModel(mlp((5,), 3, width=4, depth=1))
    optimizer = ServerOptimizer(model, TARGETS[name])
    before, update = model.params.clone(), torch.randn_like(model.params)
    columns = optimizer.step(update, 0.2)
    moved = float((model.params - before).norm())
    assert moved > 0
    if name == "sgd":
        assert columns == {} and moved == pytest.approx(0.2 * float(update.norm()), rel=1e-5)
        return
    assert columns["step_norm"] == pytest.approx(moved, rel=1e-6)
    assert 0 < columns["trust_ratio_min"] <= columns["trust_ratio_median"] <= columns["trust_ratio_max"]


def test_lars_ratio_is_that_of_norms():
    torch.manual_seed(0)
    model = FlatModel(torch.nn.Linear(5, 3, bias=False))
    plain = {"momentum": 0.0, "weight_decay": 0.0, "trust_coefficient": 0.5, "eps": 0.0}
    optimizer = ServerOptimizer(model, TARGETS["lars"] | plain)
    weight, update = float(model.params.norm()), torch.randn_like(model.params)
    columns = optimizer.step(update, 1.0)
    ratio = columns["trust_ratio_max"]
    assert columns["trust_ratio_min"] == ratio
    assert columns["step_norm"] == pytest.approx(ratio * float(update.norm()), rel=1e-5)
    assert ratio == pytest.approx(0.5 * weight / float(update.norm()), rel=1e-5)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_one_parameter_that_is_not_finite_is_found(value):
    model = FlatModel(torch.nn.Linear(30, 2))
    optimizer = ServerOptimizer(model, {"_target_": "torch.optim.SGD", "lr": 1.0})
    update = torch.zeros_like(model.params)
    assert optimizer.step(update, 1.0) == {}
    update[7] = value
    with pytest.raises(DivergedError, match="not finite"):
        optimizer.step(update, 1.0)
    with pytest.raises(DivergedError, match="not finite"):  # torch itself refuses the factor
        ServerOptimizer(FlatModel(torch.nn.Linear(3, 2)), {"_target_": "torch.optim.Adam", "lr": 1.0}).step(
            torch.ones(8), 1e39
        )
