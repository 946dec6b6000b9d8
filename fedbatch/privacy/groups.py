"""Which units a round may sample where noise is correlated: cyclic Poisson sampling.

Units are split into b groups by the public seed, and round t samples the group ``t mod b`` alone. So a unit that takes
part has its next chance b rounds later, when no noise of this round is in what is released any more.
"""

from fedbatch.core.random import Ints, generator


def groups(count: int, bands: int, seed: int, *whose: int) -> Ints:
    """The group (count,) in 0 .. bands - 1 of each of ``count`` units, equally many in each up to one.

    Args:
        count: number of units.
        bands: b, number of groups.
        seed: the run's public seed.
        whose: a client, where its examples are split.

    Which groups are the larger ones is random too, so that the groups of many clients have the same size together.
    """
    draw = generator(seed, "groups", *whose)
    return (draw.permutation(count) + draw.integers(bands)) % bands
