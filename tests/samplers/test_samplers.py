"""Samplers against closed forms: chances of clients, counts of strata, unbiased means and noise scales."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from fedbatch.batch.noise_scale import estimate_weighted
from fedbatch.core.random import key
from fedbatch.samplers import Candidates, PowerOfChoice, Stratified, Weighted, inclusion, systematic

RNG = np.random.default_rng(5)
SIZES = RNG.integers(1, 60, 25)
IDS = np.arange(25) * 3 + 1


def candidates(sizes=SIZES, losses=None):
    losses = np.full(len(sizes), np.nan) if losses is None else np.asarray(losses, float)
    return Candidates(IDS[: len(sizes)], np.asarray(sizes), losses)


def times(sampler, there, count, rounds=4000):
    """How often each candidate is drawn; every cohort is of the size that was asked for, ascending, without repeats."""
    found = np.zeros(len(there.clients))
    for round_ in range(rounds):
        clients = sampler(there, count, key(0, "cohort", round_)).clients
        assert len(clients) == count and (np.diff(clients) > 0).all()
        found[np.searchsorted(there.clients, clients)] += 1
    return found


def fits(found, chances, rounds=4000):
    """Whether counts are those of independent rounds: each is binomial, and all deviations are within five sigma."""
    spread = np.sqrt(rounds * chances * (1 - chances))
    return (np.abs(found - rounds * chances) <= 5 * spread + 1e-9).all()


def by_hand(sizes, count):
    """Chances in proportion to sizes, those above 1 cut one after the other, from the largest."""
    chances, order, left, total = np.zeros(len(sizes)), np.argsort(-sizes), count, sizes.sum()
    for k in order:
        chances[k] = min(1.0, left * sizes[k] / total)
        if chances[k] == 1.0:
            left, total = left - 1, total - sizes[k]
    return chances


@pytest.mark.parametrize("count", [1, 4, 12, 24, 25])
def test_chances_go_by_size_and_cohorts_are_drawn_with_them(count):
    sizes = np.where(np.arange(25) == 3, 2000, SIZES)  # one is nearly the whole population
    chances = inclusion(sizes, count)
    np.testing.assert_allclose(chances, by_hand(sizes.astype(float), count), rtol=1e-12)
    assert chances.sum() == pytest.approx(count) and chances[3] > 0.7
    found = times(Weighted(), candidates(sizes), count)
    assert fits(found, np.minimum(chances, 1))
    open_ = chances < 1 - 1e-9
    if count == 4:  # and together, by chi-square: n_k - n p_k over n p_k (1 - p_k), near independent
        squares = ((found - 4000 * chances)[open_] ** 2 / (4000 * chances * (1 - chances))[open_]).sum()
        assert 0.001 < stats.chi2.sf(squares, open_.sum()) < 0.999


def test_power_zero_is_uniform_and_declares_it():
    assert fits(times(Weighted(power=0.0), candidates(), 5), np.full(25, 0.2))
    assert Weighted(power=0.0).is_unbiased and Weighted(correct=True).is_unbiased and not Weighted().is_unbiased


def test_systematic_takes_one_for_every_whole_number():
    chances, order = np.array([0.5, 0.25, 0.25, 1.0, 0.6, 0.4]), np.array([2, 0, 1, 5, 4, 3])
    # Ends in that order: 0.25, 0.75, 1.0, 1.4, 2.0; the certain place 3 stands apart.
    assert systematic(chances, order, 0.1).tolist() == [2, 3, 5]
    assert systematic(chances, order, 0.3).tolist() == [0, 3, 5]
    assert systematic(chances, order, 0.8).tolist() == [1, 3, 4]


def test_strata_have_exact_counts_and_clients_equal_chances():
    for strata, count, low in ((5, 10, 2), (5, 5, 1), (1, 7, 7)):
        sampler, there = Stratified(strata), candidates()
        groups = np.empty(25, int)
        groups[np.argsort(SIZES, kind="stable")] = np.arange(25) * strata // 25
        for round_ in range(200):
            drawn = sampler(there, count, key(1, "cohort", round_)).clients
            assert (np.bincount(groups[np.searchsorted(IDS, drawn)], minlength=strata) == low).all()
        assert fits(times(sampler, there, count), np.full(25, count / 25))


def test_strata_of_a_file_are_rounded_up_or_down_at_random(tmp_path):
    file = tmp_path / "strata.csv"
    pl.DataFrame({"client": IDS[::-1].copy(), "stratum": [1] * 12 + [7] * 13}).write_csv(file)
    sampler, there = Stratified(file=str(file)), candidates()
    ones = [(sampler(there, 5, key(2, "cohort", r)).clients >= IDS[13]).sum() for r in range(3000)]
    assert set(ones) == {2, 3}  # 5 * 12 / 25 = 2.4
    assert np.mean(ones) == pytest.approx(2.4, abs=4 * 0.49 / 3000**0.5)
    assert fits(times(sampler, there, 5), np.full(25, 0.2))
    with pytest.raises(ValueError, match="has no stratum of client 2"):
        sampler.check_clients(np.array([1, 2]))
    file.write_text("client,stratum\n1,0\n1,1\n")
    with pytest.raises(ValueError, match="names a client twice"):
        Stratified(file=str(file))


def test_the_highest_losses_of_the_candidates_are_chosen():
    losses = RNG.permutation(25) / 10
    everyone = PowerOfChoice(ratio=25.0)(candidates(losses=losses), 4, 9).clients
    assert np.array_equal(everyone, np.sort(IDS[np.argsort(-losses)[:4]]))
    losses[[2, 8, 11]] = np.nan  # never seen: first
    chosen = PowerOfChoice(ratio=25.0)(candidates(losses=losses), 4, 9).clients
    best = IDS[np.argsort(-np.nan_to_num(losses, nan=-1))[0]]
    assert chosen.tolist() == sorted([*IDS[[2, 8, 11]], best])
    # With equal sizes, the j-th highest loss is chosen if it is one of d candidates with fewer than m higher ones.
    even, m, d = np.full(25, 10), 3, 6
    counts = times(PowerOfChoice(ratio=d / m), candidates(even, losses=-np.arange(25.0)), m)
    chances = [sum(stats.hypergeom.pmf(h, 24, j, d - 1) for h in range(m)) * d / 25 for j in range(25)]
    assert counts.sum() == 3 * 4000 and counts[:3] == pytest.approx(4000 * np.array(chances[:3]), abs=5 * 31)
    assert fits(counts[:1], np.array([d / 25]))  # the highest whenever it is a candidate, whatever the order
    assert fits(times(PowerOfChoice(ratio=1.0), candidates(losses=losses), 4), by_hand(SIZES.astype(float), 4))


def test_equal_losses_leave_chances_equal():
    even = candidates(np.full(25, 7), losses=np.ones(25))
    assert fits(times(PowerOfChoice(ratio=3.0), even, 4), np.full(25, 0.16))


def mean_of(weights, values):
    return (weights[:, None] * values).sum(axis=0) / weights.sum()


def test_a_corrected_sum_is_that_of_all_clients():
    """Gradients that go with size: the plain mean of a weighted sample is far off, the corrected sum is exact."""
    values = np.stack([SIZES / 10, np.sin(np.arange(25)), np.ones(25)], axis=1)
    truth, corrected, plain = values.mean(axis=0), [], []
    for round_ in range(6000):
        sample = Weighted(correct=True)(candidates(), 6, key(3, "cohort", round_))
        drawn = values[np.searchsorted(IDS, sample.clients)]
        corrected.append(sample.factors @ drawn / 6)
        plain.append(drawn.mean(axis=0))
    mean, error = np.mean(corrected, axis=0), np.std(corrected, axis=0) / 6000**0.5
    assert (np.abs(mean - truth) <= 4 * error + 1e-9).all() and error.max() < 0.02
    assert np.mean(plain, axis=0)[0] > 1.2 * truth[0]


def test_the_noise_scale_of_a_corrected_sample_is_that_of_its_examples():
    """|G|^2 = 4 and tr(S) = 90 with weights by examples times factors, as a node uses them."""
    rng, dimension, gradient = np.random.default_rng(1), 30, np.full(30, 2 / 30**0.5)
    found = []
    for round_ in range(4000):
        sample = Weighted(correct=True)(candidates(), 6, key(4, "cohort", round_))
        batches = SIZES[np.searchsorted(IDS, sample.clients)].astype(float)
        updates = gradient + rng.normal(size=(6, dimension)) * np.sqrt(90 / dimension / batches)[:, None]
        weights = batches * sample.factors
        mean = mean_of(weights, updates)
        estimate = estimate_weighted((updates**2).sum(axis=1), batches, float(mean @ mean), weights=weights)
        found.append((estimate.grad_sq, estimate.trace))
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / len(found) ** 0.5
    assert (np.abs(mean - [4, 90]) <= 4 * error).all() and error[1] < 3
