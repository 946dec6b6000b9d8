import numpy as np
import pytest

from fedbatch.batch.drift import separate


def rounds(all_clients, sizes, grad_sq=1.0, trace=40.0, drift_sq=3.0, dim=80, draws=4000, seed=0):
    rng = np.random.default_rng(seed)
    sizes = np.asarray(sizes)
    count = len(sizes)
    g = np.full(dim, np.sqrt(grad_sq / dim))
    for _ in range(draws):
        delta = rng.normal(size=(count, dim)) * np.sqrt(drift_sq / dim)
        if all_clients:  # the deltas of a whole population sum to zero; keep their mean square at drift_sq
            delta = (delta - delta.mean(0)) * np.sqrt(count / (count - 1))
        half_sizes = np.stack([sizes // 2, sizes - sizes // 2])  # (2, K)
        halves = g + delta + rng.normal(size=(2, count, dim)) * np.sqrt(trace / dim / half_sizes)[:, :, None]
        share = (half_sizes / sizes)[:, :, None]
        clients = (share * halves).sum(0)
        dots = (halves[0] * halves[1]).sum(1)
        diffs = ((halves[0] - halves[1]) ** 2).sum(1) / (1 / half_sizes[0] + 1 / half_sizes[1])
        weights = np.ones(count) if all_clients else sizes.astype(float)
        mean = weights / weights.sum() @ clients
        yield separate(
            (clients**2).sum(1), sizes.astype(float), weights, dots, diffs, float(mean @ mean), all_clients=all_clients
        )


@pytest.mark.parametrize("all_clients", [False, True])
@pytest.mark.parametrize("sizes", [[8, 8, 8, 8], [5, 9, 20, 6]])
def test_unbiased_for_clients_that_differ(all_clients, sizes):
    results = list(rounds(all_clients, sizes))
    for values, truth in (
        ([r.grad_sq for r in results], 1.0),
        ([r.trace_within for r in results], 40.0),
        ([r.drift_sq for r in results], 3.0),
    ):
        z = (np.mean(values) - truth) / (np.std(values) / np.sqrt(len(values)))
        assert abs(z) < 4


def test_ratios_are_in_examples_and_clients():
    result = separate(
        np.full(2, 6.0), np.full(2, 4.0), np.ones(2), np.full(2, 5.0), np.full(2, 4.0), 4.0, all_clients=False
    )
    assert result.within().scale == result.trace_within / result.grad_sq
    assert result.between().scale == result.drift_sq / result.grad_sq
