import numpy as np

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
        assert np.concatenate([train, held]).tolist() == everything.tolist()


def test_nothing_held_out():
    whole = IndexPartition.from_assignment(np.zeros(4, np.int64))
    assert len(HoldoutPartition(whole, 0.0).held_out(0)) == 0
