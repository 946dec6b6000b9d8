import numpy as np
import pytest

from fedbatch.active import Badge, ClusterMargin, CoreSet, Entropy, Margin, Pool, Random

SELECTORS = [Random(), Margin(), Entropy(), CoreSet(), Badge(), ClusterMargin(2.0, None, 2.0, True)]


def pool(count=30, seed=0):
    draws = np.random.default_rng(seed)
    return Pool(draws.dirichlet([0.5] * 3, size=count), draws.normal(size=(count, 4)), draws.integers(5, size=count))


@pytest.mark.parametrize("selector", SELECTORS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("wanted", [0, 1, 7, 100])
def test_every_selector_gives_distinct_available_positions(selector, wanted):
    available = np.arange(3, 23)
    chosen = selector(pool(), available, labels_wanted=wanted, seed=1)
    assert len(chosen) == len(set(chosen.tolist())) == min(wanted, 20) and set(chosen) <= set(available)
    assert chosen.tolist() == selector(pool(), available, labels_wanted=wanted, seed=1).tolist()


def test_nothing_available_gives_nothing():
    for selector in SELECTORS:
        assert not len(selector(pool(), np.zeros(0, int), labels_wanted=3, seed=0))


def test_margin_and_entropy_disagree_where_they_should():
    # Two classes tie in the first; the second is nearer to uniform over all three.
    probabilities = np.array([[0.5, 0.5, 0.0], [0.42, 0.33, 0.25], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(Margin().scores(probabilities), [0.0, 0.09, 1.0])
    entropy = 1 - np.array([np.log(2), -(0.42 * np.log(0.42) + 0.33 * np.log(0.33) + 0.25 * np.log(0.25)), 0])
    np.testing.assert_allclose(Entropy().scores(probabilities)[[0, 2]], [1 - np.log(2) / np.log(3), 1.0])
    np.testing.assert_allclose(Entropy().scores(probabilities)[1], 1 - (1 - entropy[1]) / np.log(3))
    three = Pool(probabilities, np.zeros((3, 1)), np.zeros(3, int))
    assert Margin()(three, np.arange(3), labels_wanted=1, seed=0).tolist() == [0]
    assert Entropy()(three, np.arange(3), labels_wanted=1, seed=0).tolist() == [1]


def test_coreset_takes_the_farthest_from_what_is_labelled():
    x = np.array([[0.0], [1.0], [5.0], [6.0], [10.0]])
    line = Pool(np.ones((5, 2)) / 2, x, np.zeros(5, int))
    # Labelled 0: 10 is farthest; then 5 (5 from 0, 5 from 10), before 6 and 1.
    assert CoreSet()(line, np.arange(1, 5), labels_wanted=2, seed=0).tolist() == [4, 2]


def test_badge_distances_are_those_of_the_outer_products(monkeypatch):
    some = pool(12)
    residual = some.probabilities - np.eye(3)[some.probabilities.argmax(axis=1)]
    gradients = np.einsum("nc,nd->ncd", residual, some.embeddings).reshape(12, -1)
    seen = []
    from fedbatch.active import badge

    monkeypatch.setattr(badge, "_weighted", lambda draws, weights, free: seen.append(weights) or int(weights.argmax()))
    chosen = Badge()(some, np.arange(12), labels_wanted=3, seed=0)
    assert chosen[0] == np.linalg.norm(gradients, axis=1).argmax()
    squares = np.square(gradients[:, None] - gradients[chosen[:2]][None]).sum(axis=2)
    np.testing.assert_allclose(seen[0], squares[:, 0], atol=1e-12)
    np.testing.assert_allclose(seen[1], squares.min(axis=1), atol=1e-12)


def test_coreset_never_takes_what_is_labelled_though_nothing_is_farther():
    same = Pool(np.ones((4, 2)) / 2, np.ones((4, 3)), np.zeros(4, int))
    assert sorted(CoreSet()(same, np.array([2, 3]), labels_wanted=2, seed=0)) == [2, 3]
