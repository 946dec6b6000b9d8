import numpy as np
import pytest

from fedbatch.clients.draw import first_slots
from fedbatch.clients.fedsgd import FedSGD
from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.data.partition import IndexPartition

CLIENTS, SIZES = np.array([0, 3, 8]), np.array([5, 12, 7])
PARTITION = IndexPartition.from_assignment(np.repeat(np.arange(9), [5, 1, 1, 12, 1, 1, 1, 1, 7]))


@pytest.mark.parametrize("count", [3, 12])
def test_distinct_slots_within_each_client(count):
    slots = first_slots(11, CLIENTS, SIZES, count)
    for row, size in zip(slots, SIZES, strict=True):
        taken = row[: min(count, size)]
        assert len(set(taken.tolist())) == len(taken) and (taken < size).all()


def test_every_slot_is_equally_likely_and_pairs_too():
    draws = np.stack([first_slots(k, np.array([4]), np.array([20]), 4)[0] for k in range(4000)])
    counts = np.bincount(draws.ravel(), minlength=20)
    assert (abs(counts - 800) < 5 * np.sqrt(800)).all()
    together = sum(1 for d in draws if 3 in d and 4 in d)  # 4 * 3 / (20 * 19) of the draws
    assert abs(together - 4000 * 12 / 380) < 5 * np.sqrt(4000 * 12 / 380)


def test_partial_and_full_sort_agree():
    full = first_slots(5, np.arange(6), np.full(6, 40), 40)
    assert np.array_equal(first_slots(5, np.arange(6), np.full(6, 40), 7), full[:, :7])


def test_a_clients_draw_does_not_depend_on_its_company():
    work = FedSGD()
    together = work.draw(PARTITION, CLIENTS, np.array([4, 4, 4]), seed=1, round_=2)
    alone = work.draw(PARTITION, CLIENTS[1:2], np.array([4]), seed=1, round_=2)
    assert np.array_equal(together.positions[1], alone.positions[0])


def test_fedsgd_takes_what_the_client_has():
    draw = FedSGD().draw(PARTITION, CLIENTS, np.array([9, 9, 2]), seed=0, round_=0)
    assert draw.counts.ravel().tolist() == [5, 9, 2]
    assert sorted(draw.positions[0, 0, :5].tolist()) == [0, 1, 2, 3, 4]


def test_an_epoch_visits_every_example_once():
    draw = LocalSGD(lr=0.1, epochs=2).draw(PARTITION, CLIENTS, np.array([4, 4, 4]), seed=0, round_=0)
    assert draw.counts.tolist() == [[4, 1, 0] * 2, [4, 4, 4] * 2, [4, 3, 0] * 2]
    for row, client in enumerate(CLIENTS):
        whole = PARTITION.lookup(np.array([client]), np.arange(SIZES[row])[None])[0]
        for steps in (range(3), range(3, 6)):
            seen = np.concatenate([draw.positions[row, s, : draw.counts[row, s]] for s in steps])
            assert sorted(seen.tolist()) == sorted(whole.tolist())
    assert not np.array_equal(draw.positions[1, :3], draw.positions[1, 3:])


def test_steps_are_fresh_full_batches():
    draw = LocalSGD(lr=0.1, epochs=None, steps=5).draw(PARTITION, CLIENTS, np.array([4, 4, 4]), seed=0, round_=0)
    assert draw.positions.shape == (3, 5, 4) and (draw.counts == 4).all()
    assert len({tuple(s) for s in draw.positions[1].tolist()}) == 5


@pytest.mark.parametrize("kwargs", [{"epochs": None}, {"epochs": 1, "steps": 1}, {"epochs": 0}, {"lr": 0.0}])
def test_local_sgd_refuses(kwargs):
    with pytest.raises(ValueError, match="client_work"):
        LocalSGD(**{"lr": 0.1, **kwargs})
