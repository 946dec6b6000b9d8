import math

import pytest
import torch
from torch import nn

from fedbatch.losses import SBECE, CrossEntropy, Sum
from fedbatch.metrics.evaluate import ExampleSums, example_sums
from fedbatch.models.flat import FlatModel
from fedbatch.tasks.classification import share_right


def of_each(outputs, labels):
    return share_right(outputs, labels)[:, None]


def test_sums_in_small_batches_equal_one_batch():
    torch.manual_seed(0)
    model, x, y = FlatModel(nn.Linear(3, 4)), torch.randn(25, 3), torch.randint(4, (25,))
    small, whole = (example_sums(model, CrossEntropy(), of_each, x, y, b) for b in (4, 100))
    assert small.sums == whole.sums == (int((model.module(x).argmax(1) == y).sum()),)
    assert small.loss == pytest.approx(whole.loss) == pytest.approx(CrossEntropy()(model.module(x), y).item())


@torch.no_grad()
def test_a_coupled_loss_is_averaged_over_evaluation_batches():
    torch.manual_seed(0)
    model, x, y = FlatModel(nn.Linear(3, 4)), torch.randn(25, 3), torch.randint(4, (25,))
    loss = Sum(CrossEntropy(), SBECE(), 1.0)
    parts = [float(loss(model.module(x[part]), y[part])) for part in (slice(0, 20), slice(20, 25))]
    assert example_sums(model, loss, of_each, x, y, 100).loss == pytest.approx(float(loss(model.module(x), y)))
    assert example_sums(model, loss, of_each, x, y, 20).loss == pytest.approx((20 * parts[0] + 5 * parts[1]) / 25)


def test_evaluates_in_eval_mode_and_restores_training():
    model = FlatModel(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
    before = model.buffers.clone()
    example_sums(model, CrossEntropy(), of_each, torch.randn(8, 3), torch.zeros(8, dtype=torch.int64))
    assert torch.equal(model.buffers, before) and model.module.training


def test_nothing_to_evaluate_is_nan():
    assert math.isnan(ExampleSums(0, (0.0,), 0.0).loss)


def test_of_a_sequence_the_share_of_right_positions_counts():
    model = FlatModel(nn.Embedding.from_pretrained(10 * torch.eye(3), freeze=False))  # predicts its input
    x = torch.tensor([[0, 1, 2, 0], [1, 1, 1, 1]])
    y = torch.tensor([[0, 1, 0, -100], [1, 0, 0, 0]])
    sums = example_sums(model, CrossEntropy(), of_each, x, y)
    assert (sums.count, sums.sums) == (2, pytest.approx((2 / 3 + 1 / 4,)))
    assert sums.loss == pytest.approx(CrossEntropy()(model.module(x), y).item())
