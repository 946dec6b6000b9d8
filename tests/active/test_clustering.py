import numpy as np
import pytest
import scipy.cluster.hierarchy as scipy_hierarchy
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import AgglomerativeClustering

from fedbatch.active import cluster
from fedbatch.active import clustering as module
from fedbatch.active.average_linkage import average_linkage, by_first_member
from fedbatch.active.clustering import cells, in_cells


def blobs(count, dimensions=4, seed=0, spread=1.0):
    draws = np.random.default_rng(seed)
    return draws.normal(size=(12, dimensions))[draws.integers(12, size=count)] * 3 + spread * draws.normal(
        size=(count, dimensions)
    )


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 2.0, 4.0, 50.0])
def test_partitions_are_those_of_scipy_and_scikit_learn(epsilon):
    x = blobs(300)
    found = cluster(x, epsilon=epsilon)
    scipys = scipy_hierarchy.fcluster(scipy_hierarchy.linkage(x, "average"), epsilon, "distance")
    options = {"n_clusters": None, "linkage": "average", "distance_threshold": epsilon}
    assert found.tolist() == by_first_member(scipys).tolist()
    assert found.tolist() == by_first_member(AgglomerativeClustering(**options).fit_predict(x)).tolist()


@pytest.mark.parametrize("size", [1.0, 2.5, 10.0, 300.0])
def test_mean_size_is_reached_by_the_least_cut(size):
    x = blobs(300)
    found = cluster(x, mean_cluster_size=size)
    count = found.max() + 1
    assert 300 / count >= size and 300 / (count + 1) < size
    scipys = scipy_hierarchy.fcluster(scipy_hierarchy.linkage(x, "average"), count, "maxclust")
    assert found.tolist() == by_first_member(scipys).tolist()


def test_duplicates_merge_at_zero_and_not_below():
    x = np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    assert cluster(x, epsilon=0.0).tolist() == [0, 1, 0]
    assert cluster(x, mean_cluster_size=1).tolist() == [0, 1, 2]
    assert cluster(x[:1], epsilon=1.0).tolist() == [0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 30))
def test_starting_from_clusters_gives_the_rest_of_the_tree(seed, count):
    """Merging the clusters of a low cut, by sizes and mean distances, ends at the high cut of all points."""
    x = np.random.default_rng(seed).normal(size=(count, 2))
    low, high = cluster(x, epsilon=0.5), cluster(x, epsilon=1.5)
    distances = np.linalg.norm(x[:, None] - x[None], axis=2)
    groups = range(low.max() + 1)
    means = np.array([[distances[np.ix_(low == a, low == b)].mean() for b in groups] for a in groups])
    merged = average_linkage(means, np.bincount(low)).cut(1.5)
    assert merged[low].tolist() == high.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "set one of epsilon and mean_cluster_size"),
        ({"epsilon": 1.0, "mean_cluster_size": 2.0}, "set one of epsilon and mean_cluster_size"),
        ({"epsilon": -1.0}, "epsilon must be at least 0"),
        ({"epsilon": float("nan")}, "epsilon must be at least 0"),
        ({"mean_cluster_size": 0.5}, "mean_cluster_size must be at least 1"),
    ],
)
def test_what_cannot_be_cut(options, message):
    with pytest.raises(ValueError, match=message):
        cluster(np.zeros((3, 2)), **options)


def test_what_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        cluster(np.array([[np.nan], [0.0]]), epsilon=1.0)


def test_cells_hold_all_points_once_and_keep_neighbours_together():
    x = blobs(700, spread=0.05)
    parts = cells(x, 100)
    assert max(map(len, parts)) <= 100 and sorted(np.concatenate(parts).tolist()) == list(range(700))
    near = in_cells(x, parts, "euclidean").cut(1.0)
    exact = cluster(x, epsilon=1.0)
    assert all(len(np.unique(exact[near == c])) == 1 for c in range(near.max() + 1)), "cells only split clusters"
    assert near.max() + 1 <= exact.max() + 1 + 2 * len(parts)


def test_beyond_the_cap_cells_take_over(monkeypatch):
    x = blobs(600, spread=0.05)
    exact = cluster(x, mean_cluster_size=5)
    monkeypatch.setattr(module, "EXACT_POINTS", 500)
    monkeypatch.setattr(module, "CELL_POINTS", 100)
    approximate = cluster(x, mean_cluster_size=5)
    assert 600 / (approximate.max() + 1) >= 5
    same = [np.equal.outer(labels, labels) for labels in (exact, approximate)]
    assert (same[0] & same[1]).sum() / (same[0] | same[1]).sum() > 0.5
    with pytest.raises(ValueError, match="mean_cluster_size must be at most 75 for 600 points"):
        cluster(x, mean_cluster_size=100)
