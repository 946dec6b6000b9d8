import numpy as np
import pytest

from fedbatch.clients.cohort import sample_cohort

CLIENTS = np.arange(50)


def test_uniform_cohorts_are_distinct_sorted_and_fair():
    cohorts = [sample_cohort(CLIENTS, "uniform", 10, seed=0, round_=r) for r in range(2000)]
    assert all(len(c) == 10 and (np.diff(c) > 0).all() for c in cohorts)
    counts = np.bincount(np.concatenate(cohorts), minlength=50)
    assert (abs(counts - 400) < 5 * np.sqrt(400 * 0.8)).all()


def test_poisson_cohorts_vary_in_size_as_binomial():
    sizes = np.array([len(sample_cohort(CLIENTS, "poisson", 10, seed=0, round_=r)) for r in range(3000)])
    assert abs(sizes.mean() - 10) < 4 * np.sqrt(8 / 3000)  # 50 clients at probability 0.2: variance 8
    assert sizes.var() == pytest.approx(8, rel=0.15)


def test_all_is_everybody():
    assert np.array_equal(sample_cohort(CLIENTS, "all", 3, 0, 0), CLIENTS)
