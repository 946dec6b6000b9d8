import dataclasses
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbatch.core import random as keys
from fedbatch.data import partition, partition_cache
from fedbatch.data.dataset import Dataset
from fedbatch.data.partition import DrawnPartition, IndexPartition

DIRICHLET = {
    "kind": "DirichletPartitioner",
    "num_partitions": 20,
    "partition_by": "label",
    "min_partition_size": 1,
}
SPLITS = {
    "IidPartitioner": {"num_partitions": 20},
    "LinearPartitioner": {"num_partitions": 20},
    "DirichletPartitioner": {
        "num_partitions": 20,
        "partition_by": "label",
        "alpha": 0.5,
        "min_partition_size": 1,
    },
    "PathologicalPartitioner": {
        "num_partitions": 20,
        "partition_by": "label",
        "num_classes_per_partition": 2,
    },
    "ShardPartitioner": {"num_partitions": 20, "partition_by": "label", "num_shards_per_partition": 2},
    "NaturalIdPartitioner": {"partition_by": "owner"},
}


@pytest.fixture(scope="module")
def toy():
    """2,000 examples sorted by label, of 10 labels and 37 owners."""
    labels = np.repeat(np.arange(10), 200)
    x = np.zeros((2000, 1), np.float32)
    return Dataset("toy", x, labels, x[:5], labels[:5], 10, owner=np.arange(2000) % 37 * 3)


def examples_of(split, client):
    return split.lookup(np.array([[client]]), np.arange(split.sizes(np.array([client]))[0])[None])[0]


def label_counts(split, data):
    return np.stack([np.bincount(data.train_y[examples_of(split, k)], minlength=10) for k in range(len(split))])


@given(st.lists(st.integers(-1, 7), max_size=60))
def test_index_partition_has_each_assigned_example_once(client_of):
    client_of = np.array(client_of, np.int64)
    split = IndexPartition.from_assignment(client_of)
    clients = [examples_of(split, k) for k in range(len(split))]
    assert len(split) == max(client_of, default=-1) + 1
    for k, examples in enumerate(clients):
        assert examples.tolist() == np.flatnonzero(client_of == k).tolist()


def test_lookup_broadcasts_over_clients_and_slots():
    split = IndexPartition.from_assignment(np.array([2, 0, 2, 0, 1]))
    assert split.sizes(np.array([0, 1, 2])).tolist() == [2, 1, 2]
    assert split.lookup(np.array([[2], [0]]), np.array([[1, 0], [0, 0]])).tolist() == [[2, 0], [1, 1]]


@pytest.mark.parametrize("split", [IndexPartition.from_assignment(np.array([0, 1, 1])), DrawnPartition(3, 2, 2, 0)])
@pytest.mark.parametrize(("client", "slot"), [(0, 2), (0, -1), (2, 0), (-1, 0)])
def test_lookup_outside_a_client_is_refused(split, client, slot):
    with pytest.raises(IndexError, match=r"(client|slot) -?\d is not in 0 .."):
        split.lookup(np.array([[client]]), np.array([[slot]]))


@pytest.mark.parametrize("kind", SPLITS)
def test_flower_split_has_each_example_once(toy, kind):
    split = partition.from_flower(toy, kind=kind, seed=0, **SPLITS[kind])
    assert len(split) == (37 if kind == "NaturalIdPartitioner" else 20)
    assert sorted(np.concatenate([examples_of(split, k) for k in range(len(split))])) == list(range(2000))


def test_each_kind_splits_as_its_name_says(toy):
    counts = {kind: label_counts(partition.from_flower(toy, kind=kind, seed=0, **a), toy) for kind, a in SPLITS.items()}
    assert (counts["IidPartitioner"].sum(1) == 100).all()
    assert (counts["IidPartitioner"] > 0).mean() > 0.95  # though the data come sorted by label
    assert (np.count_nonzero(counts["PathologicalPartitioner"], axis=1) == 2).all()
    assert (np.count_nonzero(counts["ShardPartitioner"], axis=1) <= 2).all()
    assert np.diff(counts["LinearPartitioner"].sum(1)).min() >= 0


def test_natural_clients_are_the_owners(toy):
    split = partition.from_flower(toy, kind="NaturalIdPartitioner", seed=0, partition_by="owner")
    for client in range(37):
        assert set(toy.owner[examples_of(split, client)]) == {client * 3}


def test_dirichlet_skew_grows_as_alpha_falls(toy):
    def skew(alpha):
        counts = label_counts(partition.from_flower(toy, seed=0, alpha=alpha, **DIRICHLET), toy)
        return (counts.max(1) / counts.sum(1)).mean()  # mean share of a client's commonest label

    assert skew(100.0) < 0.2 < skew(1.0) < skew(0.2)


def test_flower_split_depends_on_the_seed_alone(toy, tmp_path, monkeypatch):
    def client_of(seed, cache):
        monkeypatch.setenv("FEDBATCH_CACHE", str(tmp_path / cache))  # an empty cache: computed, not read
        return partition.from_flower(toy, seed=seed, alpha=0.5, **DIRICHLET).order

    assert np.array_equal(client_of(1, "a"), client_of(1, "b"))
    assert not np.array_equal(client_of(1, "a"), client_of(2, "c"))
    iid = [partition.from_flower(toy, kind="IidPartitioner", seed=s, num_partitions=20).order for s in (1, 2)]
    assert not np.array_equal(*iid)  # a partitioner without a seed


@pytest.mark.parametrize(("examples", "count"), [(10, 1), (10, 3), (10, 10), (11, 4)])
def test_even_parts_are_those_of_flower(examples, count):
    import datasets
    from flwr_datasets.partitioner import IidPartitioner

    order = np.random.default_rng(0).permutation(examples)
    flower = IidPartitioner(num_partitions=count)
    flower.dataset = datasets.Dataset.from_dict({"idx": order})
    found = partition.evenly(order, count)
    for client in range(count):
        assert set(flower.load_partition(client)["idx"]) == set(np.flatnonzero(found == client))


def test_cached_split_is_the_same_and_needs_no_flower(toy, tmp_path, environment):
    script = """
import sys, numpy as np
from fedbatch.data import partition
from fedbatch.data.bundled import digits
split = partition.from_flower(digits(), kind="LinearPartitioner", seed=3, num_partitions=7)
print("flwr_datasets" in sys.modules, split.order[:50].tolist(), split.offsets.tolist())
"""
    runs = [
        subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    (first, a), (second, b) = (run.stdout.split(" ", 1) for run in runs)
    assert (first, second) == ("True", "False") and a == b


def test_cache_tells_everything_apart_that_matters(toy):
    paths = {
        partition_cache.path_of(data, kind, seed, arguments)
        for data in (
            toy,
            dataclasses.replace(toy, owner=None),
            dataclasses.replace(toy, train_y=toy.train_y[::-1]),
        )
        for kind in ("IidPartitioner", "LinearPartitioner")
        for seed in (0, 1)
        for arguments in ({"num_partitions": 2}, {"num_partitions": 3})
    }
    assert len(paths) == 3 * 2 * 2 * 2


@pytest.mark.parametrize("damage", ["empty", "half", "flipped", "pickled", "other length"])
def test_damaged_cache_is_computed_again(toy, damage):
    arguments = {"num_partitions": 5}
    sound = partition.from_flower(toy, kind="IidPartitioner", seed=0, **arguments)
    path = partition_cache.path_of(toy, "IidPartitioner", 0, arguments)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "pickled":
        np.savez(path, client_of=np.array([{}] * 2000, dtype=object))
    elif damage == "other length":
        np.savez(path, client_of=np.zeros(3, np.int64))
    else:
        path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "flipped": content}[damage])
    again = partition.from_flower(toy, kind="IidPartitioner", seed=0, **arguments)
    assert np.array_equal(again.order, sound.order) and np.array_equal(again.offsets, sound.offsets)
    assert partition_cache.read(path, 2000) is not None  # and mended


def test_unwritable_cache_does_not_stop_the_run(toy, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDBATCH_CACHE", str(tmp_path / "file" / "below"))  # a folder that not even root can make
    assert len(partition.from_flower(toy, kind="IidPartitioner", seed=0, num_partitions=5)) == 5


def test_cache_leaves_no_temporary_file(toy, tmp_path):
    partition.from_flower(toy, kind="IidPartitioner", seed=0, num_partitions=5)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npz"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "Dirichlet"}, ["partitioner.kind=Dirichlet", "DirichletPartitioner"]),
        ({**DIRICHLET, "alpha": 0.001}, ["alpha=0.001", "raise partitioner.alpha", "lower population"]),
        ({**DIRICHLET, "alpha": -1.0}, ["alpha=-1.0", "greater than zero"]),
        ({"kind": "IidPartitioner", "num_partitions": 3000}, ["num_partitions=3000", "lower population"]),
        ({"kind": "LinearPartitioner", "num_partitions": 300}, ["num_partitions=300", "lower population"]),
        ({"kind": "IidPartitioner", "clients": 3}, ["'clients'", "partitioner fields"]),
        (
            {"kind": "NaturalIdPartitioner", "partition_by": "user"},
            ["partition_by=user", "idx, label, owner"],
        ),
    ],
)
def test_impossible_splits_are_refused_in_one_line(toy, arguments, words):
    with pytest.raises(ValueError) as error:
        partition.from_flower(toy, seed=0, **arguments)
    message = str(error.value)
    assert message.startswith("partitioner") and "\n" not in message
    for word in words:
        assert word in message


def test_natural_split_without_owners_names_the_remedy(toy):
    ownerless = dataclasses.replace(toy, owner=None)
    with pytest.raises(ValueError, match=r"partition_by=owner: data set toy .*dataset\.owner_column"):
        partition.from_flower(ownerless, kind="NaturalIdPartitioner", seed=0, partition_by="owner")


def test_drawn_partition_against_one_at_a_time():
    split = DrawnPartition(num_examples=97, population=50, examples_per_client=8, seed=5)
    clients, slots = np.array([[3], [49]]), np.array([[0, 7, 7], [1, 2, 3]])
    found = split.lookup(clients, slots)
    for (row, column), example in np.ndenumerate(found):
        word = keys.bits(keys.key(5, "drawn"), clients[row], slots[row, column : column + 1])[0]
        assert example == int(word) % 97
    assert split.sizes(clients).tolist() == [[8], [8]] and found.dtype == np.int64


def test_drawn_partition_is_uniform_and_seeded():
    split, other = DrawnPartition(10, 1000, 20, seed=0), DrawnPartition(10, 1000, 20, seed=1)
    grid = np.arange(1000)[:, None], np.arange(20)[None]
    counts = np.bincount(split.lookup(*grid).ravel(), minlength=10)
    assert abs(counts - 2000).max() < 5 * np.sqrt(2000)
    assert (split.lookup(*grid) == other.lookup(*grid)).mean() < 0.15


def test_population_of_a_million_needs_little_memory(toy):
    tracemalloc.start()
    split = partition.drawn(toy, population=1_000_000, examples_per_client=20, seed=0)
    cohort = np.random.default_rng(0).choice(len(split), 1000, replace=False)
    batch = split.lookup(cohort[:, None], np.tile(np.arange(20), (1000, 1)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert batch.shape == (1000, 20) and batch.max() < 2000
    assert peak < 20_000_000  # 8 MB of it is NumPy's way to choose without replacement


@pytest.mark.parametrize("field", ["population", "examples_per_client"])
def test_drawn_names_a_bad_field(toy, field):
    arguments = {"population": 5, "examples_per_client": 5, field: 0}
    with pytest.raises(ValueError, match=rf"partitioner\.{field} must be at least 1 \(got 0\)"):
        partition.drawn(toy, seed=0, **arguments)
