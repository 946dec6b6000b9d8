import numpy as np

from fedbatch.core.random import bits, generator, key


def test_same_key_same_stream_and_other_purpose_other_stream():
    a, b = generator(3, "cohort", 7), generator(3, "cohort", 7)
    assert np.array_equal(a.integers(0, 100, 50), b.integers(0, 100, 50))
    assert not np.array_equal(generator(3, "batch", 7).integers(0, 100, 50), b.integers(0, 100, 50))


def test_numbers_do_not_run_together():
    assert key(1, "x", 1, 23) != key(1, "x", 12, 3)
    assert key(11, "x", 1) != key(1, "x", 11)


def test_bits_are_uniform_and_uncorrelated_between_neighbours():
    words = bits(key(0, "test"), np.arange(400)[:, None], np.arange(500)[None, :])
    u = words / 2.0**64
    assert abs(u.mean() - 0.5) < 4 * np.sqrt(1 / 12 / u.size)
    for a, b in ((u[1:], u[:-1]), (u[:, 1:], u[:, :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / np.sqrt(a.size)
    counts = np.bincount((u.ravel() * 100).astype(int), minlength=100)
    chi_square = ((counts - u.size / 100) ** 2 / (u.size / 100)).sum()
    assert chi_square < 99 + 4 * np.sqrt(2 * 99)


def test_bits_do_not_depend_on_the_company():
    k = key(5, "test")
    together = bits(k, np.array([1, 2, 9])[:, None], np.arange(4)[None, :])
    assert np.array_equal(together[2], bits(k, np.array([9]), np.arange(4)))
