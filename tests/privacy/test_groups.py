import numpy as np

from fedbatch.privacy.groups import groups


def test_groups_are_equal_up_to_one_unit_and_follow_from_the_seed():
    for count, bands in ((20, 4), (23, 4), (3, 8), (0, 4)):
        sizes = np.bincount(groups(count, bands, 0), minlength=bands)
        assert sizes.sum() == count and sizes.max() - sizes.min() <= 1
    assert np.array_equal(groups(50, 5, 7, 3), groups(50, 5, 7, 3))
    others = [groups(50, 5, 7, 4), groups(50, 5, 8, 3), groups(50, 5, 7)]
    assert not any(np.array_equal(groups(50, 5, 7, 3), other) for other in others)


def test_the_larger_groups_of_many_clients_are_not_the_same_ones():
    sizes = sum(np.bincount(groups(5, 4, 0, client), minlength=4) for client in range(2000))
    assert abs(sizes - 2500).max() < 5 * (2000 * 3 / 16) ** 0.5


def test_any_two_units_share_a_group_as_often():
    together = np.mean([groups(8, 4, seed)[0] == groups(8, 4, seed)[1] for seed in range(3000)])
    assert abs(together - 1 / 7) < 5 * (6 / 49 / 3000) ** 0.5
