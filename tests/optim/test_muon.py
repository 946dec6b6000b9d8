"""Muon against torch's two optimizers side by side; Lion against its reference vectors is in test_golden."""

import copy

import pytest
import torch
from torch import nn

from fedbatch.optim import Lion, Muon

SETTINGS = {"lr": 0.02, "weight_decay": 0.1}


def model():
    torch.manual_seed(0)
    return nn.ModuleDict(
        {"tokens": nn.Embedding(7, 4), "inner": nn.Linear(4, 6), "conv": nn.Conv2d(2, 3, 2), "out": nn.Linear(6, 5)}
    )


def with_gradients(module, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        p.grad = torch.randn(p.shape, generator=generator)


def test_matrices_go_by_muon_and_the_rest_by_adamw():
    ours, theirs = model(), model()
    optimizer = Muon(ours.named_parameters(), adamw=["tokens.*", "out.*"], betas=(0.9, 0.95), **SETTINGS)
    matrices = [theirs["inner"].weight]
    rest = [p for p in theirs.parameters() if p is not matrices[0]]
    both = (
        torch.optim.Muon(matrices, momentum=0.95, adjust_lr_fn="match_rms_adamw", **SETTINGS),
        torch.optim.AdamW(rest, betas=(0.9, 0.95), **SETTINGS),
    )
    for seed in range(4):
        with_gradients(ours, seed)
        with_gradients(theirs, seed)
        optimizer.step()
        for each in both:
            each.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p, q)


def test_without_names_every_matrix_is_one():
    ours = model()
    optimizer = Muon(ours.parameters(), lr=0.1, adamw=["*"])
    assert [len(group["params"]) for group in optimizer.param_groups] == [3, 4]
    only = nn.Linear(3, 2, bias=False)
    with_gradients(only, 0)
    Muon(only.parameters(), lr=0.1).step()  # nothing for AdamW


def test_goes_on_from_its_state():
    ours = model()
    optimizer = Muon(ours.parameters(), lr=0.1)
    for seed in range(3):
        with_gradients(ours, seed)
        optimizer.step()
    other = model()
    other.load_state_dict(ours.state_dict())
    again = Muon(other.parameters(), lr=0.1)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for module, each in ((ours, optimizer), (other, again)):
        with_gradients(module, 9)
        each.step()
    for p, q in zip(ours.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_lion_without_memory_is_signs():
    p = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    optimizer = Lion([p], lr=0.1, betas=(0.0, 0.0), weight_decay=0.5)
    p.grad = torch.tensor([3.0, -1e-9, 0.0])
    assert optimizer.step(lambda: 7.0) == 7.0
    torch.testing.assert_close(p.detach(), torch.tensor([0.95 - 0.1, -1.9 + 0.1, 0.475]))
    for wrong in ({"lr": -1.0}, {"lr": 1.0, "betas": (0.9, 1.0)}, {"lr": 1.0, "weight_decay": -1.0}):
        with pytest.raises(ValueError, match="must be"):
            Lion([p], **wrong)
