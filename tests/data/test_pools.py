import numpy as np
import pytest

from fedbatch.data.bundled import digits
from fedbatch.data.pools import long_tail, redundant


def test_a_redundant_pool_holds_copies_by_zipf():
    base = digits()
    pool = redundant(base, originals=200, examples=3000, noise=0.0)
    whole = {row.tobytes(): label for row, label in zip(base.train_x, base.train_y, strict=True)}
    assert all(whole[row.tobytes()] == label for row, label in zip(pool.train_x, pool.train_y, strict=True))
    counts = np.sort(np.unique(pool.train_x, axis=0, return_counts=True)[1])[::-1]
    assert counts.sum() == 3000 and abs(counts[0] - 3000 / 5.878) < 90, "the 200th harmonic number is 5.878"
    noisy = redundant(base, originals=200, examples=3000, noise=0.1)
    assert abs((noisy.train_x - pool.train_x).std() - 0.1) < 0.001
    assert np.array_equal(noisy.test_x, base.test_x)


def test_a_long_tail_falls_from_class_to_class():
    pool = long_tail(digits(), ratio=10.0)
    counts = np.bincount(pool.train_y, minlength=10)
    assert (np.diff(counts) <= 0).all() and counts[9] == round(counts[0] / 10)
    assert abs(counts[3] - counts[0] * 10 ** (-3 / 9)) <= 1
    assert len(pool.train_x) == len(pool.train_y) == counts.sum()


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda base: redundant(base, 0, 10, 0.1), "originals must be in 1 .. 1438"),
        (lambda base: redundant(base, 10, 10, -1.0), "noise at least 0"),
        (lambda base: long_tail(base, 0.5), "ratio must be at least 1"),
    ],
)
def test_what_cannot_be_made(make, line):
    with pytest.raises(ValueError, match=line):
        make(digits())
