import numpy as np
import pytest

from fedbatch.batch.noise_scale import estimate, estimate_weighted


def gaussian_rounds(sizes, dim, grad_sq, trace, draws, seed=0, drift_sq=0.0):
    """Norms of many rounds of isotropic Gaussian gradients: (draws, K) and (draws,) for the weighted mean."""
    rng = np.random.default_rng(seed)
    sizes = np.asarray(sizes, dtype=float)
    g = np.zeros(dim)
    g[0] = np.sqrt(grad_sq)
    noise = rng.normal(size=(draws, len(sizes), dim)) * np.sqrt(trace / dim / sizes)[None, :, None]
    drift = rng.normal(size=(draws, len(sizes), dim)) * np.sqrt(drift_sq / dim)
    gradients = g + noise + drift
    mean = np.einsum("k,rkd->rd", sizes / sizes.sum(), gradients)
    return (gradients**2).sum(2), (mean**2).sum(1)


def z_score(values, truth):
    return (np.mean(values) - truth) / (np.std(values) / np.sqrt(len(values)))


@pytest.mark.parametrize("sizes", [[8] * 6, [4, 8, 8, 16, 64, 128], [1, 1000]])
def test_unbiased_for_equal_and_unequal_batches(sizes):
    norms, means = gaussian_rounds(sizes, dim=160, grad_sq=2.0, trace=320.0, draws=4000)
    rounds = [estimate(n, sizes, m) for n, m in zip(norms, means, strict=True)]
    assert abs(z_score([r.trace for r in rounds], 320.0)) < 4
    assert abs(z_score([r.grad_sq for r in rounds], 2.0)) < 4


def test_spread_of_the_specification():
    """Unequal batches, S = 320, |G|^2 = 2: 319.9 +- 16.0 and 2.001 +- 0.297; 20.0 and 0.75 with equal weights."""
    sizes = np.array([4, 8, 8, 16, 64, 128])
    rng = np.random.default_rng(1)
    dim, g = 500, np.zeros(500)
    # sd 16 of the trace means tr(Sigma^2) = 16^2 * (K - 1) / 2 = 640, so tr(Sigma)^2 / tr(Sigma^2) = 160 dimensions
    scale = np.zeros(dim)
    scale[:160] = np.sqrt(2.0)
    g[:250] = np.sqrt(2.0 / 250)
    traces, grads, uniform_traces, uniform_grads = [], [], [], []
    for _ in range(3000):
        e = rng.normal(size=(6, dim)) * scale / np.sqrt(sizes)[:, None]
        clients = g + e
        norms = (clients**2).sum(1)
        best = estimate(norms, sizes, float(((sizes / sizes.sum()) @ clients) @ ((sizes / sizes.sum()) @ clients)))
        plain = clients.mean(0)
        uniform = estimate_weighted(norms, sizes, float(plain @ plain), weights=np.ones(6))
        traces.append(best.trace), grads.append(best.grad_sq)
        uniform_traces.append(uniform.trace), uniform_grads.append(uniform.grad_sq)
    assert np.mean(traces) == pytest.approx(320, abs=4 * 16 / np.sqrt(3000))
    assert np.std(traces) == pytest.approx(16.0, rel=0.06)
    assert np.std(grads) == pytest.approx(0.297, rel=0.10)
    assert np.mean(uniform_traces) == pytest.approx(320, abs=4 * 20 / np.sqrt(3000))
    assert np.std(uniform_traces) > 1.15 * np.std(traces) and np.std(uniform_grads) > 2 * np.std(grads)


def test_standard_errors_match_the_spread_over_rounds():
    sizes = [4, 8, 8, 16, 64, 128]
    norms, means = gaussian_rounds(sizes, dim=160, grad_sq=2.0, trace=320.0, draws=3000, seed=3)
    rounds = [estimate(n, sizes, m) for n, m in zip(norms, means, strict=True)]
    claimed = np.sqrt(np.mean([r.trace_se**2 for r in rounds])), np.sqrt(np.mean([r.grad_sq_se**2 for r in rounds]))
    assert claimed[0] == pytest.approx(np.std([r.trace for r in rounds]), rel=0.25)
    assert claimed[1] == pytest.approx(np.std([r.grad_sq for r in rounds]), rel=0.25)


def test_known_privacy_noise_is_subtracted():
    sizes, added = np.array([4.0, 8.0, 16.0]), 50.0
    rng = np.random.default_rng(5)
    dim, rounds = 60, []
    g = np.full(dim, np.sqrt(2.0 / dim))
    for _ in range(4000):
        noise = rng.normal(size=(3, dim)) * np.sqrt(20.0 / dim / sizes)[:, None]
        private = rng.normal(size=(3, dim)) * np.sqrt(added / dim) / sizes[:, None]
        clients = g + noise + private
        mean = sizes / sizes.sum() @ clients
        rounds.append(estimate((clients**2).sum(1), sizes, float(mean @ mean), noise_variance=added))
    assert abs(z_score([r.trace for r in rounds], 20.0)) < 4
    assert abs(z_score([r.grad_sq for r in rounds], 2.0)) < 4


def test_weighted_form_with_batch_sizes_is_the_best_form():
    a = estimate([5.0, 3.0, 4.0], [2, 3, 4], 2.5)
    b = (2 * 5 + 3 * 3 + 4 * 4 - 9 * 2.5) / 2
    assert a.trace == pytest.approx(b) and a.grad_sq == pytest.approx(2.5 - b / 9)


@pytest.mark.parametrize("arguments", [([1.0], [2], 1.0), ([1.0, 2.0], [2], 1.0), ([1.0, 2.0], [2, 0], 1.0)])
def test_what_cannot_be_estimated_is_refused(arguments):
    with pytest.raises(ValueError, match="clients|equally long|positive"):
        estimate(*arguments)
