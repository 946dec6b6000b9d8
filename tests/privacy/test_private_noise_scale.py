"""The estimator on synthetic releases whose |G|^2 and trace are known."""

import numpy as np
import pytest

from fedbatch.privacy.noise_scale import ReleaseNoise, estimate

SIZE, POPULATION, Q = 200, 640, 0.25


@pytest.mark.parametrize("sigma", [0.0, 1.0, 4.0])
def test_unbiased_and_its_errors_are_right(sigma):
    rng = np.random.default_rng(1)
    contributions = rng.normal(size=(POPULATION, SIZE)) * 0.05 + rng.normal(size=SIZE) * 0.02
    contributions /= np.maximum(1, np.linalg.norm(contributions, axis=1, keepdims=True))  # clipped at 1
    mean, squares = contributions.mean(axis=0), (contributions**2).sum(axis=1)
    truth = float(mean @ mean), float(squares.mean() - mean @ mean)
    batch = Q * POPULATION
    noise = ReleaseNoise(1.0, sigma, 10 * sigma, SIZE)
    found = []
    for _ in range(3000):
        taken = rng.random(POPULATION) < Q
        total = contributions[taken].sum(axis=0) + sigma * rng.normal(size=SIZE)
        square_sum = squares[taken].sum() + 10 * sigma * rng.normal()
        released = total / batch
        found.append(estimate(float(released @ released), square_sum, batch, Q, noise))
    for name, true in zip(("grad_sq", "trace"), truth, strict=True):
        values = np.array([getattr(e, name) for e in found])
        errors = np.array([getattr(e, f"{name}_se") for e in found])
        assert abs(values.mean() - true) < 4 * values.std() / len(values) ** 0.5
        # An upper bound where sampling dominates, and close where noise does.
        assert values.std() < 1.1 * errors.mean()
        if sigma == 4:
            assert errors.mean() < 1.3 * values.std()


def test_without_noise_and_sampling_it_is_exact():
    found = estimate(0.25, 8.0, 16.0, 1.0, ReleaseNoise(1.0, 0.0, 0.0, 3))
    assert (found.grad_sq, found.trace, found.scale) == (0.25, 0.25, 1.0)
