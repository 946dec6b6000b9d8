import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbatch.active import cluster, cluster_margin, margins
from fedbatch.active.cluster_margin import round_robin_order, round_robin_quotas

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/cluster_margin.json").read_text())
EMBEDDINGS, PROBABILITIES = (np.array(GOLDEN["inputs"][name]) for name in ("embeddings", "probs"))


def test_golden_margins_and_clusters():
    np.testing.assert_allclose(margins(PROBABILITIES), GOLDEN["derived"]["margins"], atol=1e-12)
    found = cluster(EMBEDDINGS, epsilon=GOLDEN["inputs"]["epsilon"])
    assert found.tolist() == GOLDEN["derived"]["cluster_labels_by_first_member"]


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_golden_selections(case):
    chosen = cluster_margin(
        np.array(GOLDEN["derived"]["margins"]),
        cluster(EMBEDDINGS, epsilon=case["epsilon"]),
        case["available"],
        candidates=case["k_m"],
        labels_wanted=case["k_t"],
    )
    assert chosen.tolist() == case["selected_in_order"]


POOLS = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 5).map(lambda m: m / 5), min_size=n, max_size=n).map(np.array),
        st.lists(st.integers(0, 6), min_size=n, max_size=n).map(np.array),
        st.lists(st.integers(0, n - 1), max_size=n),
    )
)
COUNTS = st.integers(0, 50)


@settings(max_examples=50, deadline=None)
@given(POOLS, COUNTS, COUNTS, st.sampled_from([None, 3]))
def test_never_loops_repeats_or_takes_what_is_not_available(pool, candidates, wanted, seed):
    scores, clusters, available = pool
    chosen = cluster_margin(scores, clusters, available, candidates=candidates, labels_wanted=wanted, seed=seed)
    assert len(chosen) == len(set(chosen.tolist())) == min(candidates, wanted, len(set(available)))
    assert set(chosen.tolist()) <= set(available)


@settings(max_examples=30, deadline=None)
@given(POOLS, COUNTS, st.booleans())
def test_singletons_and_one_cluster_are_both_margin_sampling(pool, wanted, together):
    """What epsilon -> 0 and epsilon -> infinity make of it."""
    scores, _, available = pool
    clusters = np.zeros(len(scores), int) if together else np.arange(len(scores))
    chosen = cluster_margin(scores, clusters, available, candidates=50, labels_wanted=wanted)
    by_margin = sorted(set(available), key=lambda i: (scores[i], i))
    assert chosen.tolist() == by_margin[:wanted]


@settings(max_examples=30, deadline=None)
@given(POOLS, COUNTS, COUNTS)
def test_quotas_are_what_dealing_out_one_by_one_gives(pool, candidates, wanted):
    scores, clusters, available = pool
    order = sorted(set(available), key=lambda i: (scores[i], i))[:candidates]
    counts = np.bincount(clusters[order], minlength=7) if order else np.zeros(7, int)
    best = np.array([next((r for r, i in enumerate(order) if clusters[i] == c), 99) for c in range(7)])
    visit, left, dealt = round_robin_order(counts, best), counts.copy(), []
    while len(dealt) < min(wanted, len(order)):
        dealt += [c for c in visit if left[c] > 0]
        left -= left > 0
    expected = np.bincount(np.array(dealt[:wanted], int), minlength=7)
    assert round_robin_quotas(counts, visit, wanted).tolist() == expected.tolist()
    chosen = cluster_margin(scores, clusters, available, candidates=candidates, labels_wanted=wanted)
    assert np.bincount(clusters[chosen], minlength=7).tolist() == expected.tolist()


def test_a_seed_chooses_uniformly_within_a_cluster():
    scores, clusters = np.arange(6) / 6, np.array([0, 0, 0, 0, 1, 1])
    first = [
        cluster_margin(scores, clusters, range(6), candidates=6, labels_wanted=2, seed=s).tolist() for s in range(400)
    ]
    assert first[0] == cluster_margin(scores, clusters, range(6), candidates=6, labels_wanted=2, seed=0).tolist()
    assert all(small in (4, 5) and large < 4 for small, large in first)
    # 400 draws of 4: each about 100, standard deviation 8.7
    assert np.abs(np.bincount([large for _, large in first], minlength=4) - 100).max() < 45
