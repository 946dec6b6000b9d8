import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedbatch.data.holdout import HoldoutPartition
from fedbatch.data.partition import IndexPartition


def test_training_and_held_out_parts_are_disjoint_and_complete():
    whole = IndexPartition.from_assignment(np.repeat([0, 1, 2], [10, 3, 7]))
    split = HoldoutPartition(whole, 0.3)
    clients = np.arange(3)
    assert split.sizes(clients).tolist() == [7, 3, 5] and len(split) == 3
    for client in clients:
        train = split.lookup(np.array([client]), np.arange(int(split.sizes(clients)[client])))
        held = split.held_out(int(client))
        everything = whole.lookup(np.array([client]), np.arange(int(whole.sizes(clients)[client])))
        assert np.sort(np.concatenate([train, held])).tolist() == everything.tolist()


@given(size=st.integers(1, 60), fraction=st.floats(0, 0.999))
def test_held_out_examples_lie_evenly_among_the_others(size, fraction):
    split = HoldoutPartition(IndexPartition.from_assignment(np.zeros(size, np.int64)), fraction)
    kept = int(split.sizes(np.array([0]))[0])
    train, held = split.lookup(np.zeros(kept, np.int64), np.arange(kept)), split.held_out(0)
    assert sorted([*train, *held]) == list(range(size)) and len(held) == int(fraction * size)
    # After k of h held out come the same share of the others, rounded up.
    assert [int((train < position).sum()) for position in held] == [
        -(-k * kept // len(held)) for k in range(1, len(held) + 1)
    ]


def test_nothing_held_out():
    whole = IndexPartition.from_assignment(np.zeros(4, np.int64))
    assert len(HoldoutPartition(whole, 0.0).held_out(0)) == 0
