"""Robust aggregation against brute force, and what a fifth of adversaries can do to it."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbatch.aggregation.robust import Krum, NormBound, TrimmedMean, median


@st.composite
def matrices(draw):
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 5)))
    return torch.from_numpy(np.random.default_rng(draw(st.integers(0, 10_000))).normal(size=shape))


updates = matrices()


@settings(deadline=None)
@given(updates)
def test_median_and_trimmed_mean_are_numpys_and_scipys(values):
    from scipy.stats import trim_mean

    assert np.allclose(median(values), np.median(values.numpy(), axis=0))
    for share in (0.0, 0.2, 0.49):
        assert np.allclose(TrimmedMean(share)(values), trim_mean(values.numpy(), share, axis=0))


@settings(deadline=None)
@given(updates, st.integers(0, 4), st.integers(1, 3))
def test_krum_is_brute_force(values, adversaries, select):
    x = values.numpy()
    neighbours = len(x) - adversaries - 2
    if neighbours < 1:
        expected = x.mean(axis=0)
    else:
        scores = []
        for i in range(len(x)):
            others = [j for j in range(len(x)) if j != i]
            sums = [sum(((x[i] - x[j]) ** 2).sum() for j in group) for group in combinations(others, neighbours)]
            scores.append(min(sums))
        expected = x[np.argsort(scores, kind="stable")[:select]].mean(axis=0)
    assert np.allclose(Krum(adversaries, select)(values), expected)


@settings(deadline=None)
@given(updates, st.floats(0.1, 10))
def test_one_client_moves_a_bounded_mean_by_no_more_than_its_share(values, norm):
    bounded = NormBound(norm)
    before = bounded(values)
    values[0] = torch.randn_like(values[0]) * 1e12
    assert (bounded(values) - before).norm() <= 2 * norm / len(values) * (1 + 1e-9)
    near = values[1:] * (0.01 * norm) / values.norm()
    assert not len(near) or torch.allclose(bounded(near), near.mean(dim=0))


ATTACKS = {
    "sign flip": lambda honest: -10 * honest.mean(dim=0),
    "scaled": lambda honest: 1e6 * honest.mean(dim=0),
    "a little is enough": lambda honest: honest.mean(dim=0) - 1.0 * honest.std(dim=0),
}
ROBUST = {"median": median, "trimmed": TrimmedMean(0.2), "krum": Krum(4), "multi_krum": Krum(4, 10)}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", ROBUST)
def test_a_fifth_of_adversaries_stays_bounded(name, attack):
    generator = torch.Generator().manual_seed(0)
    truth = torch.ones(1000, dtype=torch.float64)
    honest = truth + 0.3 * torch.randn(16, 1000, generator=generator, dtype=torch.float64)
    attacked = torch.cat([honest, ATTACKS[attack](honest).expand(4, -1)])
    # A single honest update is 0.3 from the truth, and Krum picks one; a plain mean is 2.2 or 2e5 away.
    error = (ROBUST[name](attacked) - truth).norm() / truth.norm()
    assert error < 0.45
    if attack != "a little is enough":
        assert (attacked.mean(dim=0) - truth).norm() / truth.norm() > 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrimmedMean(0.5), "share must be in"),
        (lambda: Krum(-1), "adversaries must be >= 0"),
        (lambda: NormBound(0), "norm must be > 0"),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
