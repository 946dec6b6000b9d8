"""MERIT's ablations against NumPy, step by step."""

import numpy as np
import pytest
import torch

from simulations.merit_ablations import EuclideanMERIT, WeightwiseMERIT

LR, BETAS, EPS, DECAY = 0.3, (0.9, 0.95), 1e-6, 0.1


def ratio(above, below):
    return above / below if above > 0 and below > 0 else 1.0


def euclidean(w, d):
    whole = ratio(np.sqrt((w**2).sum()), np.sqrt((d**2).sum()))
    if w.ndim < 2:
        return whole
    s = np.ones_like(w)
    for i, j in np.ndindex(*w.shape):
        norms = [np.sqrt((part**2).sum()) for part in (w[i], d[i], w[:, j], d[:, j])]
        if min(norms) > 0:
            s[i, j] = max(norms[0] / norms[1], norms[2] / norms[3], whole)
    return s


def weightwise(w, d):
    return ratio(np.abs(w).max(), np.abs(d).max())


def stepped(w, grads, scale):
    m, v = np.zeros_like(w), np.zeros_like(w)
    for g in grads:
        m, v = BETAS[0] * m + (1 - BETAS[0]) * g, BETAS[1] * v + (1 - BETAS[1]) * g * g
        d = m / (np.sqrt(v) + EPS) + DECAY * w
        w = w - LR * np.clip(scale(w, d) * d, -1, 1)
    return w


def start(shape, seed):
    rng = np.random.default_rng(seed)
    w, grads = 3 * rng.normal(size=shape), rng.normal(size=(4, *shape))
    if len(shape) == 2:
        w[1], w[:, 2] = 0, 0  # a row and a column without a scale
    return w, grads


@pytest.mark.parametrize("make, scale", [(EuclideanMERIT, euclidean), (WeightwiseMERIT, weightwise)])
@pytest.mark.parametrize("shape", [(4, 5), (6,)])
def test_steps_are_those_of_numpy(make, scale, shape):
    w, grads = start(shape, len(shape))
    p = torch.tensor(w, requires_grad=True)
    optimizer = make([p], lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY)
    for g in grads:
        p.grad = torch.tensor(g)
        optimizer.step()
    np.testing.assert_allclose(p.detach().numpy(), stepped(w, grads, scale), rtol=0, atol=1e-12)
    assert optimizer.trust_ratios().shape == (1,)


def test_a_filter_of_a_convolution_is_a_row():
    w, grads = start((3, 8), 5)
    ends = []
    for shape in ((3, 8), (3, 2, 2, 2)):
        p = torch.tensor(w.reshape(shape), requires_grad=True)
        p.grad = torch.tensor(grads[0].reshape(shape))
        EuclideanMERIT([p], lr=LR).step()
        ends.append(p.detach().flatten(1))
    torch.testing.assert_close(*ends)
