"""What all three owe to anyone's training script."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fedbatch.models.flat import FlatModel
from fedbatch.optim import LAMB, LARS, MERIT

OPTIMIZERS = pytest.mark.parametrize("make", [LARS, LAMB, MERIT])


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.Flatten(), nn.Linear(16, 3))


def backward(module, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, 2, 4, 4, generator=generator).to(next(module.parameters()).dtype)
    module.zero_grad()
    loss = module(x).square().mean()
    loss.backward()
    return loss


def flat(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@OPTIMIZERS
def test_a_closure_runs_with_gradients_and_its_loss_comes_back(make):
    module = model()
    assert make(module.parameters(), lr=0.1).step(lambda: backward(module, 1)).requires_grad


@OPTIMIZERS
def test_maximize_is_minimize_of_the_negative(make):
    up, down = model(), model()
    optimizers = [make(up.parameters(), lr=0.1, maximize=True), make(down.parameters(), lr=0.1)]
    for seed in range(3):
        backward(up, seed)
        for p, q in zip(up.parameters(), down.parameters(), strict=True):
            q.grad = -p.grad
        before = [p.grad.clone() for p in up.parameters()]
        for optimizer in optimizers:
            optimizer.step()
        assert all(torch.equal(a, p.grad) for a, p in zip(before, up.parameters(), strict=True))
    assert torch.equal(flat(up), flat(down))


@OPTIMIZERS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_saved_optimizer_goes_on_bit_for_bit(make, dtype, tmp_path):
    module = model().to(dtype)
    optimizer = make(module.parameters(), lr=0.1)
    for seed in range(2):
        backward(module, seed)
        optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    twin = copy.deepcopy(module)
    restored = make(twin.parameters(), lr=0.5)
    restored.load_state_dict(torch.load(tmp_path / "state.pt"))
    for each, own in ((module, optimizer), (twin, restored)):
        for seed in range(2, 4):
            backward(each, seed)
            own.step()
    assert torch.equal(flat(module), flat(twin))


@OPTIMIZERS
def test_bfloat16_parameters_have_float32_state_and_arithmetic(make):
    half = model().bfloat16()
    whole = copy.deepcopy(half).float()
    steps = make(half.parameters(), lr=0.1), make(whole.parameters(), lr=0.1)
    backward(half, 0)
    for p, q in zip(half.parameters(), whole.parameters(), strict=True):
        q.grad = p.grad.float()
    for optimizer in steps:
        optimizer.step()
    tensors = [t for s in steps[0].state.values() for t in s.values() if isinstance(t, torch.Tensor)]
    assert tensors and {t.dtype for t in tensors} == {torch.float32}
    assert torch.equal(flat(half), flat(whole).bfloat16())


@OPTIMIZERS
@pytest.mark.parametrize("channels_last", [False, True])
def test_views_of_a_flat_vector_step_like_tensors_of_their_own(make, channels_last):
    plain, viewed = model(), FlatModel(model(), channels_last=channels_last)
    steps = make(plain.parameters(), lr=0.1), make(viewed.trainable, lr=0.1)
    for seed in range(3):
        backward(plain, seed)
        viewed.grads.copy_(viewed.join([p.grad for p in plain.parameters()]))
        for optimizer in steps:
            optimizer.step()
    torch.testing.assert_close(flat(viewed.module), flat(plain), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(viewed.params, viewed.join(list(plain.parameters())), rtol=1e-5, atol=1e-7)


@OPTIMIZERS
def test_the_size_of_batches_changes_nothing(make, monkeypatch):
    ends = []
    for size in (1, 2**30):
        monkeypatch.setattr("fedbatch.optim.layerwise.CPU_BATCH_BYTES", size)
        module = model()
        optimizer = make(module.parameters(), lr=0.1)
        backward(module, 0)
        optimizer.step()
        ends.append(torch.cat([flat(module), optimizer.trust_ratios()]))
    assert torch.equal(*ends)


@OPTIMIZERS
def test_excluded_vectors_step_with_ratio_one_and_without_decay(make):
    w, b = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.full((2,), 8.0))
    optimizer = make([w, b], lr=0.5, weight_decay=0.25, exclude_1d=True)
    w.grad, b.grad = torch.ones(2, 2), torch.tensor([2.0, -2.0])
    optimizer.step()
    # m / sqrt(v) is 1 with bias correction and 0.1 / sqrt(0.05) without
    step = {LARS: 0.5 * 2, LAMB: 0.5, MERIT: 0.5 * 0.1 / 0.05**0.5}[make]
    torch.testing.assert_close(b.detach(), torch.tensor([8 - step, 8 + step]), rtol=1e-5, atol=0)
    assert optimizer.trust_ratios().shape == (1,)


def test_ratios_by_hand():
    w = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    w.grad = torch.tensor([[0.0, 2.0]])
    lars = LARS([w], lr=0.0, trust_coefficient=0.5, weight_decay=0.2)
    lars.step()
    assert lars.trust_ratios().tolist() == pytest.approx([0.5 * 5 / (2 + 0.2 * 5)])
    lamb = LAMB([w], lr=0.0, weight_decay=0.0)
    lamb.step()
    assert lamb.trust_ratios().tolist() == pytest.approx([5.0], rel=1e-4)
    merit = MERIT([w], lr=0.0, weight_decay=0.0)
    merit.step()
    assert merit.trust_ratios().tolist() == pytest.approx([4 / (0.1 / 0.05**0.5)], rel=1e-4)
    assert LAMB([nn.Parameter(torch.ones(2))], lr=0.1).trust_ratios().shape == (0,)


def merit_step(w, g, flatten=False):
    p = nn.Parameter(w.clone())
    p.grad = g
    MERIT([p], lr=1.0, weight_decay=0.5, flatten=flatten).step()
    return p.detach() - w


def test_merit_reads_a_convolution_as_the_code_or_as_a_matrix():
    torch.manual_seed(0)
    w, g = torch.randn(2, 3, 2, 2).double() / 10, torch.randn(2, 3, 2, 2).double() ** 3
    w[1] = 0
    w[1, 2, 0, 1] = 0.1  # elsewhere this filter is a zero row of its place
    as_matrix = merit_step(w, g, flatten=True)
    torch.testing.assert_close(as_matrix, merit_step(w.flatten(1), g.flatten(1)).view_as(w))

    d = 0.1 * g / ((0.05 * g**2).sqrt() + 1e-6) + 0.5 * w
    expected = torch.empty_like(w)
    for o, i, y, x in np.ndindex(*w.shape):
        maxima = [t.abs()[o, :, y, x].max() for t in (w, d)] + [t.abs()[:, i, y, x].max() for t in (w, d)]
        largest = max(maxima[0] / maxima[1], maxima[2] / maxima[3], w.abs().max() / d.abs().max())
        expected[o, i, y, x] = -((largest if min(maxima) > 0 else 1) * d[o, i, y, x]).clamp(-1, 1)
    as_code = merit_step(w, g)
    torch.testing.assert_close(as_code, expected)
    assert not torch.allclose(as_code, as_matrix)


@OPTIMIZERS
def test_what_cannot_be_done_is_refused_in_one_line(make):
    table = nn.Embedding(5, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="sparse gradients .* use nn.Embedding"):
        make(table.parameters(), lr=0.1).step()
    for bad in ({"lr": -1.0}, {"lr": 0.1, "eps": -1.0}, {"lr": 0.1, "weight_decay": float("nan")}):
        with pytest.raises(ValueError, match="must be at least 0"):
            make(model().parameters(), **bad)


@pytest.mark.parametrize(
    ("make", "bad", "message"),
    [
        (LARS, {"momentum": 1.0}, "momentum"),
        (LARS, {"trust_coefficient": 0.0}, "trust_coefficient"),
        (LAMB, {"betas": (0.9, 1.0)}, "betas"),
        (MERIT, {"betas": (-0.1, 0.9)}, "betas"),
        (LAMB, {"phi_min": 2.0, "phi_max": 1.0}, "phi_min"),
    ],
)
def test_arguments_out_of_range_are_named(make, bad, message):
    with pytest.raises(ValueError, match=message):
        make(model().parameters(), lr=0.1, **bad)
