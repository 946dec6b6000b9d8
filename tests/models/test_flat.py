import pytest
import torch
from torch import nn

from fedbatch.losses import CrossEntropy
from fedbatch.models.flat import FlatModel


def test_views_follow_in_both_directions():
    module = nn.Linear(2, 3)
    flat = FlatModel(module)
    flat.params.zero_()
    assert not module.weight.any()
    with torch.no_grad():
        module.bias.fill_(2.0)
    assert flat.params[-3:].tolist() == [2, 2, 2]


def test_gradient_is_fresh_each_time():
    torch.manual_seed(0)
    flat = FlatModel(nn.Linear(4, 3))
    x, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    flat.loss_and_gradient(CrossEntropy(), x, y)
    first = flat.grads.clone()
    flat.loss_and_gradient(CrossEntropy(), x, y)
    assert torch.equal(first, flat.grads) and first.any()


def test_an_optimizer_steps_the_flat_vector():
    flat = FlatModel(nn.Linear(2, 2))
    before = flat.params.clone()
    flat.grads.fill_(1.0)
    torch.optim.SGD(flat.trainable, lr=0.5).step()
    torch.testing.assert_close(flat.params, before - 0.5)


def test_tied_weights_count_once():
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    module[1].weight = module[0].weight
    assert FlatModel(module).params.numel() == 9


def test_buffers_are_copied_in_both_directions():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    flat = FlatModel(module)
    assert flat.buffers.numel() == 9 and flat.counters == 1
    module(torch.randn(5, 3))
    assert not flat.buffers[:4].any() and flat.pull_buffers()[:4].any()
    assert flat.buffers[8] == module[1].num_batches_tracked == 1
    flat.load(flat.params, torch.tensor([0.0] * 8 + [2.6]))
    assert not module[1].running_var.any() and module[1].num_batches_tracked == 3


def test_mixed_dtypes_are_refused():
    with pytest.raises(ValueError, match="share one dtype"):
        FlatModel(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()))


def test_buffers_as_checkpoints_once_held_them():
    module = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    module.register_buffer("mask", torch.ones(3))
    flat = FlatModel(module, changing=["0.running_mean", "0.running_var", "0.num_batches_tracked"])
    old = torch.arange(7.0)  # in the module's order: the mask, then mean and variance
    assert flat.of_all_floats(old).tolist() == [3, 4, 5, 6, 0]
    assert flat.of_all_floats(torch.zeros(5)).tolist() == [0] * 5 and flat.of_all_floats(torch.zeros(4)).numel() == 4
