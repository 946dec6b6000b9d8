"""What the ratios promise, for any weights and gradients."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbatch.optim import LAMB, LARS, MERIT

SHAPES = st.sampled_from([(7,), (3, 5), (2, 3, 2, 2)])
SEEDS = st.integers(0, 2**31)
SCALES = st.floats(-4, 4).map(lambda power: 10.0**power)
RATES = st.floats(1e-4, 0.5)
quick = settings(max_examples=50, deadline=None)


def drawn(shape, seed, scale):
    return scale * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def steps_of(make, w, grads):
    """Parameters before, between and after the steps, and the optimizer."""
    p = w.clone().requires_grad_()
    optimizer = make([p])
    path = [w]
    for g in grads:
        p.grad = g
        optimizer.step()
        path.append(p.detach().clone())
    return path, optimizer


@quick
@given(SHAPES, SEEDS, SCALES, SCALES, RATES, st.floats(0.0, 1.0))
def test_a_lamb_step_has_the_norm_that_phi_says(shape, seed, weight_scale, scale, lr, decay):
    w, grads = drawn(shape, seed, weight_scale), [drawn(shape, seed + 1 + i, scale) for i in range(3)]
    path, optimizer = steps_of(lambda p: LAMB(p, lr, weight_decay=decay, phi_min=0.5, phi_max=20.0, eps=1e-9), w, grads)
    for before, after in pairwise(path):
        expected = lr * before.norm().clamp(0.5, 20)
        rounding = 1e-15 * float(before.norm())
        torch.testing.assert_close((after - before).norm(), expected, rtol=1e-9, atol=rounding)
    assert optimizer.trust_ratios().shape == (1,)


@quick
@given(SHAPES, SEEDS, SCALES, SCALES, RATES, st.floats(0.0, 1.0), st.booleans())
def test_a_merit_step_stays_below_the_largest_weight_and_below_lr(shape, seed, weight_scale, scale, lr, decay, flatten):
    w, grads = drawn(shape, seed, weight_scale), [drawn(shape, seed + 1 + i, scale) for i in range(3)]
    path, _ = steps_of(lambda p: MERIT(p, lr, weight_decay=decay, flatten=flatten), w, grads)
    for before, after in pairwise(path):
        bound = lr * min(1.0, float(before.abs().max()))
        assert float((after - before).abs().max()) <= bound * (1 + 1e-9) + 1e-15 * weight_scale


@quick
@given(SHAPES, SEEDS, st.floats(0.01, 100.0), st.sampled_from(["lars", "lamb", "merit"]))
def test_the_scale_of_gradients_does_not_matter(shape, seed, scale, name):
    make = {
        "lars": lambda p: LARS(p, 1.0, weight_decay=0.0),
        "lamb": lambda p: LAMB(p, 0.1, eps=0.0),
        "merit": lambda p: MERIT(p, 0.1, eps=0.0),
    }[name]
    w, grads = drawn(shape, seed, 1.0), [drawn(shape, seed + 1 + i, 1.0) for i in range(3)]
    path, _ = steps_of(make, w, grads)
    scaled, _ = steps_of(make, w, [scale * g for g in grads])
    torch.testing.assert_close(scaled[-1], path[-1], rtol=1e-9, atol=1e-12)


def grown(make, rounds, size=10_000):
    """|w_T| / |w_0| of a tensor whose loss ignores its norm: gradients are noise at right angles to it, as 1 / |w|."""
    w = torch.nn.Parameter(drawn((size,), 0, 1.0))
    start = float(w.detach().norm())
    optimizer = make([w])
    for i in range(rounds):
        unit = w.detach() / w.detach().norm()
        noise = drawn((size,), i + 1, 1.0)
        w.grad = (noise - unit * (unit @ noise)) / w.detach().norm()
        optimizer.step()
    return float(w.detach().norm()) / start


def test_a_scale_invariant_tensor_grows_by_pythagoras_under_lars():
    growth = grown(lambda p: LARS(p, 100.0, momentum=0.0, weight_decay=0.0, trust_coefficient=0.001), 50)
    assert growth == pytest.approx((1 + 0.1**2) ** 25, rel=1e-12)


def test_a_scale_invariant_tensor_grows_by_pythagoras_under_lamb():
    # Adam's sign-like direction is at right angles to w only on average, so this holds up to 1 / sqrt(size).
    growth = grown(lambda p: LAMB(p, 0.1, betas=(0.0, 0.0), weight_decay=0.0), 50)
    assert growth == pytest.approx((1 + 0.1**2) ** 25, rel=0.02)


@pytest.mark.parametrize(
    ("make", "rest"),
    [
        # With step share a = 0.1, gradient norm 100 / |w| and decay b, growth stops at |w|^2 = a * 100 / (2 b) ...
        (lambda p: LARS(p, 100.0, momentum=0.0, weight_decay=1e-3, trust_coefficient=0.001), 5000**0.5),
        # ... and with a direction of norm 100 whatever |w|, at |w| = a * 100 / (2 b).
        (lambda p: LAMB(p, 0.1, betas=(0.0, 0.0), weight_decay=0.1), 50.0),
    ],
    ids=["lars", "lamb"],
)
def test_decay_holds_the_norm_of_a_scale_invariant_tensor(make, rest):
    assert 100 * grown(make, 400) == pytest.approx(rest, rel=0.08)
