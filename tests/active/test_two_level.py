import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbatch.active import two_level
from fedbatch.active.two_level import Summaries, cluster_squared, merge, summarize
from fedbatch.core.errors import RunFailedError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/cluster_margin.json").read_text())
CASE = GOLDEN["federated_two_level"]
EMBEDDINGS = np.array(GOLDEN["inputs"]["embeddings"])


def test_golden_local_clusters_and_their_merge():
    epsilon = CASE["threshold_squared"] ** 0.5
    summaries, members = [], []
    for client in range(3):
        units = [unit for unit in CASE["units"] if unit["client"] == client]
        own = np.sort(np.concatenate([unit["members"] for unit in units]))
        local = cluster_squared(EMBEDDINGS[own], epsilon=epsilon)
        assert [own[local == c].tolist() for c in range(len(units))] == [unit["members"] for unit in units]
        summaries.append(summarize(EMBEDDINGS[own], local))
        members += [own[local == c] for c in range(len(units))]
    joined = Summaries(*(np.concatenate([getattr(s, f) for s in summaries]) for f in vars(summaries[0])))
    np.testing.assert_allclose(joined.centroids, [u["centroid"] for u in CASE["units"]], atol=1e-12)
    np.testing.assert_allclose(joined.deviations, [u["mean_sq_dev"] for u in CASE["units"]], atol=1e-12)
    groups = merge(joined, epsilon=epsilon)
    same = np.equal.outer(groups, groups), np.equal.outer(*[CASE["global_id_of_unit"]] * 2)
    assert (same[0] == same[1]).all()
    assert all(
        len({CASE["centralised_labels"][i] for g in np.flatnonzero(groups == c) for i in members[g]}) == 1
        for c in range(5)
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 25))
def test_merging_singletons_is_clustering_the_union(seed, count):
    x = np.random.default_rng(seed).normal(size=(count, 2))
    singles = summarize(x, np.arange(count))
    assert merge(singles, epsilon=1.2).tolist() == cluster_squared(x, epsilon=1.2).tolist()
    assert merge(singles, mean_cluster_size=3).tolist() == cluster_squared(x, mean_cluster_size=3).tolist()


def test_mean_sizes_count_points_and_not_clusters():
    five = Summaries(np.array([8, 1, 1]), np.array([[0.0], [1.0], [5.0]]), np.zeros(3))
    assert merge(five, mean_cluster_size=5).tolist() == [0, 0, 1]


def test_too_many_clusters_name_the_remedy(monkeypatch):
    monkeypatch.setattr(two_level, "EXACT_POINTS", 2)
    with pytest.raises(RunFailedError, match=r"raise active\.selector\.local_cluster_size"):
        merge(summarize(np.eye(3), np.arange(3)), epsilon=1.0)


def test_deviations_and_sizes_count_in_the_distance_of_clusters():
    # Squared distances by hand: A-B 9, A-C 4 + 9, B-C 25 + 9; of A and B together to C, (3 * 13 + 34) / 4 = 18.25.
    three = Summaries(np.array([3, 1, 2]), np.array([[0.0], [3.0], [-2.0]]), np.array([0.0, 0.0, 9.0]))
    assert merge(three, epsilon=3.01).tolist() == [0, 0, 1]
    assert merge(three, epsilon=18.2**0.5).tolist() == [0, 0, 1]
    assert merge(three, epsilon=18.3**0.5).tolist() == [0, 0, 0]
