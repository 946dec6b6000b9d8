import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbatch.active.order_statistic import LARGEST, histogram, score_keys, smallest, threshold

KEYS = st.lists(st.tuples(st.integers(0, LARGEST) | st.integers(0, 40), st.integers(0, 2)), min_size=1, unique=True)


@settings(max_examples=30, deadline=None)
@given(KEYS, st.data())
def test_counts_find_what_sorting_finds(pairs, data):
    keys, groups = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    wanted = np.array([data.draw(st.integers(1, max(1, (groups == g).sum()))) for g in range(3)])
    present = [g for g in range(3) if (groups == g).any()]
    renumbered = np.array([present.index(g) for g in groups])

    def count(lows, width, bins):
        return histogram(keys, renumbered, lows, width, bins)

    expected = [np.sort(keys[groups == g])[wanted[g] - 1] for g in present]
    assert smallest(count, wanted[present]).tolist() == expected
    up_to = threshold(count, wanted[present])
    assert [(keys[groups == g] <= up_to[i]).sum() for i, g in enumerate(present)] == wanted[present].tolist()


def test_keys_order_as_scores_do_and_break_ties_by_a_salted_hash():
    scores = np.array([0.0, 1e-30, 0.25, 0.25, 0.5, 1.0])
    clients, slots = np.zeros(6, np.int64), np.arange(6)
    keys = score_keys(scores, clients, slots, salt=1)
    assert (keys >= 0).all() and (keys <= LARGEST).all() and len(set(keys.tolist())) == 6
    assert np.argsort(keys)[[0, 1, 4, 5]].tolist() == [0, 1, 4, 5]
    firsts = [int(score_keys(scores, clients, slots, salt).argsort()[2]) for salt in range(40)]
    assert {2, 3} == set(firsts)


def test_what_has_no_group_or_lies_outside_is_not_counted():
    keys, groups = np.array([0, 9, 10, 29, 30, 15]), np.array([0, 0, 0, 0, 0, 1])
    assert histogram(keys, groups, np.array([10]), 10, 2).tolist() == [[1, 1]]
