"""A model is tried before the run: what cannot work is one line, what it does is found, and nothing is left."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from fedbatch.losses import CrossEntropy
from fedbatch.models.flat import FlatModel
from fedbatch.models.trial import Wanted, try_out

X, Y = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3


class Model(nn.Module):
    """A linear map whose forward is given."""

    def __init__(self, forward=lambda self, x: self.map(x), **buffers):
        super().__init__()
        self.map = nn.Linear(5, 3)
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def of_each(outputs, labels):
    return (outputs.argmax(dim=-1) == labels).double()[:, None]


def tried(module, loss=None, sizes=(2,), x=X, y=Y):
    model = FlatModel(module, changing=())
    try_out(model, loss or CrossEntropy(), x, y, Wanted(lambda labels: (*labels, 3)), list(sizes))
    return model


def replaced(self, x):
    self.map.weight.data = self.map.weight.data.clone()
    return self.map(x)


def counted(self, x):
    self.calls = getattr(self, "calls", 0) + 1
    return self.map(x) * min(1.0, self.calls / 100)


def averaged(self, x):
    self.mean = 0.9 * getattr(self, "mean", 0.0) + 0.1 * x.mean(0).detach()
    return self.map(x - self.mean)


OWN_GENERATOR = np.random.default_rng(0)


def drawn_by_its_own(self, x):
    return self.map(x) * OWN_GENERATOR.random()


class Outside(CrossEntropy):
    """Says that it is a mean over examples, and is not."""

    def __call__(self, logits, labels, reduction="mean"):
        value = super().__call__(logits, labels, reduction)
        return value if reduction == "none" else value + logits.std()


class Summed(CrossEntropy):
    def __call__(self, logits, labels, reduction="mean"):
        return super().__call__(logits, labels, "sum" if reduction == "mean" else reduction)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            lambda: Model(lambda s, x: (s.map(x), x)),
            "its output is a tuple of 0, 1; it must be one tensor of logits .*; name the logits",
        ),
        (lambda: Model(lambda s, x: {"logits": s.map(x)}), "its output is a dict"),
        (lambda: Model(lambda s, x: s.map(x)[:, :2]), r"shape \(2, 2\) .* must hold logits of shape \(2, 3\)"),
        (lambda: Model(lambda s, x: s.map(x)[0]), r"shape \(3,\)"),
        (lambda: Model(lambda s, x: s.map(x).argmax(1)), "torch.int64"),
        (
            lambda: Model(lambda s, x: s.map(x.view(len(x), 4))),
            r"cannot be called on a batch of 2 examples of shape \(5,\)",
        ),
        (lambda: Model(lambda s, x: s.map(x).detach()), "depends on no parameter"),
        (lambda: Model(lambda s, x: 1 / 0), "division by zero"),
        (
            lambda: Model(lambda s, x: s.map(x) if s.training else (s.map(x), x)),
            "its output is a tuple of 0, 1; .* evaluation",
        ),
        (lambda: Model(lambda s, x: s.map(x) if s.training else 1 / 0), "in evaluation: division by zero"),
        (lambda: Model(counted), "two calls on the same examples .* register_buffer"),
        (lambda: Model(averaged), "two calls on the same examples"),
        (lambda: Model(drawn_by_its_own), "two calls on the same examples .* a generator of its own"),
        (lambda: Model(replaced), "puts another tensor in place of map.weight"),
        (
            lambda: Model(lambda s, x: s.map(x) + 0 * s.best.fill_(x.max().item()), best=torch.tensor(float("-inf"))),
            "not finite",
        ),
    ],
)
def test_what_cannot_work_is_one_line(module, message):
    with pytest.raises(ValueError, match=message) as told:
        tried(module())
    assert "\n" not in str(told.value) and str(told.value).startswith("model: ")


def test_a_counter_that_would_be_rounded_on_its_way_is_refused():
    with pytest.raises(ValueError, match="buffer seed holds whole numbers that torch.float32 cannot"):
        tried(Model(lambda s, x: s.map(x) + 0 * s.seed.add_(1), seed=torch.tensor(2**24)))
    assert tried(Model(lambda s, x: s.map(x) + 0 * s.seed.add_(1), seed=torch.tensor(7))).changing == ["seed"]


def test_a_frozen_parameter_that_moves_is_refused():
    def moved(self, x):
        self.map.bias.add_(1.0)
        return self.map(x)

    module = Model(moved)
    module.map.bias.requires_grad_(False)
    with pytest.raises(ValueError, match="changes the frozen parameter map.bias"):
        tried(module)


@pytest.mark.parametrize("loss", [Outside(), Summed()])
def test_a_loss_that_is_no_mean_over_its_examples_is_refused(loss):
    with pytest.raises(ValueError, match="loss: .* per_example = False"):
        tried(Model(), loss)


def test_batch_norm_with_a_batch_of_one_says_what_to_do():
    module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    with pytest.raises(ValueError, match="batch of 1 example .* batch norm needs two examples"):
        tried(module, sizes=(1, 2))
    assert tried(module, sizes=(2,)).examples_meet


@pytest.mark.parametrize(
    ("module", "is_random", "meet", "changing"),
    [
        (lambda: Model(), False, False, []),
        (lambda: nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.0)), False, False, []),
        (lambda: nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5)), True, False, []),
        (lambda: Model(lambda s, x: s.map(x) * random.random()), True, None, []),
        (lambda: Model(lambda s, x: s.map(x) * np.random.rand()), True, None, []),
        (lambda: Model(lambda s, x: s.map(x - x.mean(0))), False, True, []),
        (lambda: Model(lambda s, x: s.map(x).cumsum(0)), False, True, []),  # the first example does not notice
        (lambda: Model(lambda s, x: s.map(x - x.mean(0) * (len(x) > 3))), False, True, []),
        (lambda: Model(mask=torch.full((3,), float("-inf"))), False, False, []),
        (
            lambda: nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)),
            False,
            True,
            ["1.running_mean", "1.running_var", "1.num_batches_tracked"],
        ),
    ],
)
def test_what_a_model_does_is_found_by_calling_it(module, is_random, meet, changing):
    torch.manual_seed(0)
    model = tried(module(), sizes=(2, 8))
    assert model.is_random == is_random and model.changing == changing
    if meet is not None:
        assert model.examples_meet == meet


def test_nothing_is_left_behind():
    module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)).eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    generators = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    model = tried(module)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generators[0]) and (np.random.get_state()[1] == generators[1]).all()
    assert random.getstate() == generators[2] and not model.module.training


def test_parameters_that_share_memory_are_refused():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight.data = first.weight.data
    with pytest.raises(ValueError, match="0.weight and 1.weight are two parameters that share memory"):
        FlatModel(nn.Sequential(first, second))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype):
    with pytest.raises(ValueError, match=r"must be float32 or float64 .* call .float\(\)"):
        FlatModel(nn.Linear(2, 2).to(dtype))


def test_a_sparse_gradient_reaches_the_flat_vector():
    dense, sparse = nn.Embedding(5, 2), nn.Embedding(5, 2, sparse=True)
    sparse.weight.data.copy_(dense.weight.data)
    found = []
    for table in (dense, sparse):
        model = FlatModel(table)
        for _ in range(2):
            model.loss_and_gradient(lambda out, _: out.square().sum(), torch.tensor([1, 3, 3]), None)
        found.append(model.grads.clone())
    assert found[0].any() and torch.equal(*found)


@pytest.mark.parametrize("as_buffer", [True, False])
def test_a_view_of_a_parameter_is_refused(as_buffer):
    module = nn.Linear(3, 3)
    view = module.weight.detach().t()
    module.register_buffer("turned", view) if as_buffer else setattr(module, "turned", view)
    with pytest.raises(ValueError, match="turned shares memory with the parameter weight"):
        FlatModel(module)


def test_a_forward_that_works_in_place_changes_no_data():
    from fedbatch.metrics.evaluate import example_sums, logits_of

    module = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 3))
    x, y = X.clone(), Y.clone()
    model = tried(module, x=x, y=y)
    first = example_sums(model, CrossEntropy(), of_each, x, y)
    logits_of(model, x)
    assert torch.equal(x, X) and torch.equal(y, Y) and example_sums(model, CrossEntropy(), of_each, x, y) == first


def test_an_evaluation_leaves_parameters_and_buffers_alone():
    from fedbatch.metrics.evaluate import example_sums

    def normalised(self, x):
        with torch.no_grad():
            self.map.weight.div_(self.map.weight.norm(dim=1, keepdim=True))
            self.calls += 1
        return self.map(x)

    model = tried(Model(normalised, calls=torch.tensor(0)))
    before = model.params.clone()
    example_sums(model, CrossEntropy(), of_each, X, Y)
    assert torch.equal(model.params, before) and model.pull_buffers()[-1] == 0
