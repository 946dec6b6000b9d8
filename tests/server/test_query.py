"""Many clients choose as one owner would: the protocol over a Grid against `cluster_margin` on the union."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedbatch import client_app, server_app
from fedbatch.active import cluster_margin, margins
from fedbatch.active.two_level import cluster_squared
from fedbatch.core.errors import RunFailedError
from fedbatch.data.dataset import Dataset
from fedbatch.data.holdout import HoldoutPartition
from fedbatch.data.partition import IndexPartition
from fedbatch.node import query as active_node
from fedbatch.node.labels import NodeFiles
from fedbatch.runtime.local import LocalGrid
from fedbatch.server.query import Poll, choose_own, choose_together, cluster_pools
from fedbatch.setup import task, validate
from fedbatch.wire.check import MessageError
from fedbatch.wire.codec import decode, encode, reply
from fedbatch.wire.queries import Labelled

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/cluster_margin.json").read_text())
EXACT = ("active.selector.random_picks=false", "active.selector.mean_cluster_size=null")


@pytest.fixture
def federation(make_config, monkeypatch):
    """A server whose clients hold the given embeddings, with the given probabilities, and no label yet."""

    def make(embeddings, probabilities, client_of, *overrides, nodes=2, folder="run"):
        count, classes = probabilities.shape
        # An input is the number of its example, so that what the model would say can be looked up.
        inputs = np.arange(count, dtype=np.float32)[:, None]
        dataset = Dataset("given", inputs, np.zeros(count, np.int64), inputs[:1], np.zeros(1, np.int64), classes)
        partition = HoldoutPartition(IndexPartition.from_assignment(client_of), 0.0)

        def look_up(model, x):
            rows = x[:, 0].long().numpy()
            return probabilities[rows], embeddings[rows]

        monkeypatch.setattr(validate, "data", lambda text: (dataset, partition))
        monkeypatch.setattr(active_node, "embed", look_up)
        size = f"population={len(partition)}", f"nodes={nodes}", "cohort_size=1", "client_batch_size=1"
        labels = "active.seed_labels=1", "active.labels_per_query=1", "active.queries=1"
        config = make_config(
            "active=cluster_margin", "controller=fixed", *size, *labels, *EXACT, *overrides, folder=folder
        )
        run = task.load(config.to_json())
        server = server_app.new_server(run, LocalGrid(client_app.app, nodes, {"config": config.to_json()}))
        choose_own(Poll(server, 0), None, np.zeros(len(partition), np.int64))
        return server, server_app.start(server)

    return make


def positions(server, query=1):
    """Labelled examples of all nodes, ascending."""
    folder = Path(server.task.config.run_dir) / "active"
    found = [NodeFiles(path).labels(query, server.task.partition) for path in sorted(folder.iterdir())]
    return np.sort(np.concatenate([own.whole.lookup(own.owners, own.slots) for own in found]))


def select(server, state, wanted, query=1):
    poll = Poll(server, query)
    groups = cluster_pools(poll, state)
    return groups, choose_together(poll, state, groups, wanted)


def test_golden_two_level_selection(federation):
    case = GOLDEN["federated_two_level"]
    client_of = np.empty(24, np.int64)
    for unit in case["units"]:
        client_of[unit["members"]] = unit["client"]
    given = np.array(GOLDEN["inputs"]["embeddings"]), np.array(GOLDEN["inputs"]["probs"])
    epsilon = f"active.selector.epsilon={case['threshold_squared'] ** 0.5}"
    server, state = federation(*given, client_of, epsilon, "active.selector.candidates_per_label=2")
    groups, answers = select(server, state, case["k_t"])
    flat = np.concatenate(groups)
    assert (np.equal.outer(flat, flat) == np.equal.outer(*[case["global_id_of_unit"]] * 2)).all()
    assert positions(server).tolist() == sorted(case["selected_in_order"])
    assert np.concatenate([a.num_labelled for a in answers]).tolist() == case["quota_per_client"]
    assert np.sum([a.group_counts for a in answers], axis=0).sum() == case["k_t"]


def drawn(seed, count=160, spread=0.05):
    draw = np.random.default_rng(seed)
    blob = draw.integers(12, size=count)
    embeddings = np.outer(4 * np.arange(12), np.ones(3))[blob] + spread * draw.normal(size=(count, 3))
    return embeddings, draw.dirichlet(np.ones(4), size=count).astype(np.float32), draw.integers(5, size=count)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_on_separated_clusters_the_choice_is_that_of_one_owner(federation, seed):
    embeddings, probabilities, client_of = drawn(seed)
    server, state = federation(embeddings, probabilities, client_of, "active.selector.epsilon=1.0", nodes=3)
    select(server, state, 15)
    clusters = cluster_squared(embeddings, epsilon=1.0)
    central = cluster_margin(margins(probabilities), clusters, range(160), candidates=150, labels_wanted=15)
    assert positions(server).tolist() == sorted(central.tolist())
    first = positions(server)
    poll = Poll(server, 2)
    choose_together(poll, state, cluster_pools(poll, state), 15)
    left = np.setdiff1d(np.arange(160), first)
    central = cluster_margin(margins(probabilities), clusters, left, candidates=150, labels_wanted=15)
    assert positions(server, 2).tolist() == sorted([*first.tolist(), *central.tolist()])


@pytest.mark.slow
def test_random_picks_keep_the_quotas_and_do_not_depend_on_the_nodes(federation):
    given, options = drawn(5), ("active.selector.epsilon=1.0", "active.selector.random_picks=true")
    chosen = []
    for nodes in (1, 4):
        server, state = federation(*given, *options, nodes=nodes, folder=str(nodes))
        select(server, state, 20)
        chosen.append(positions(server).tolist())
    clusters = cluster_squared(given[0], epsilon=1.0)
    central = cluster_margin(margins(given[1]), clusters, range(160), candidates=160, labels_wanted=20)
    assert chosen[0] == chosen[1] != sorted(central.tolist())
    assert np.bincount(clusters[chosen[0]]).tolist() == np.bincount(clusters[central]).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [0, 1, 500])
def test_what_is_left_bounds_what_is_chosen(federation, wanted):
    server, state = federation(*drawn(1), "active.selector.epsilon=1.0")
    _, answers = select(server, state, wanted)
    assert sum(a.num_labelled.sum() for a in answers) == min(wanted, 160)
    poll = Poll(server, 2)
    answers = choose_together(poll, state, cluster_pools(poll, state), 10)
    assert sum(a.num_labelled.sum() for a in answers) == min(wanted + 10, 160)


@pytest.mark.slow
def test_no_centroid_is_sent_of_small_clusters_or_by_global_only(federation, monkeypatch):
    embeddings, probabilities, client_of = drawn(2)
    answers = []
    monkeypatch.setattr(active_node, "reply", lambda answer, to: answers.append(answer) or reply(answer, to))
    for overrides in (["active.selector.min_cluster_size=4"], ["active.scope=global_only"]):
        answers.clear()
        server, state = federation(embeddings, probabilities, client_of, "active.selector.epsilon=1.0", *overrides)
        groups = np.concatenate(cluster_pools(Poll(server, 1), state))
        clusters = [a for a in answers if type(a).__name__ == "LocalClusters"]
        shared = np.concatenate([a.cluster_sizes for a in clusters])
        assert not ((shared > 0) & (shared < 4)).any() and (shared == 0).any()
        assert (
            sum(len(a.centroids) for a in clusters)
            == 3 * (shared > 0).sum()
            == 3 * sum(len(a.deviations) for a in clusters)
        )
        alone = groups[shared == 0]
        assert len(set(alone.tolist())) == len(alone) and not set(alone.tolist()) & set(groups[shared > 0].tolist())
    assert not shared.any() and not any(a.centroids.numel() for a in clusters)


def test_a_node_that_fails_ends_the_query_by_name(federation):
    server, state = federation(*drawn(1), "active.selector.epsilon=1.0")
    for path in (Path(server.task.config.run_dir) / "active").glob("node-1/*"):
        path.unlink()
    with pytest.raises(RunFailedError, match="query 1 needs every node.*this node has no .*npz; resume with the nodes"):
        select(server, state, 5)


def test_counts_of_bytes_are_those_of_the_arrays(federation):
    server, state = federation(*drawn(1), "active.selector.epsilon=1.0", nodes=1)
    poll = Poll(server, 1)
    (groups,) = cluster_pools(poll, state)
    header = 128  # of an array in NumPy's format
    model = 4 * state.params.numel()
    assert poll.bytes_down == 3 * header + model + 4 * state.buffers.numel() + 8 * 5
    shared = len(groups)
    assert poll.bytes_up == 4 * header + 8 * 5 + 8 * shared + 8 * 3 * shared + 8 * shared


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"num_labelled": np.array([1])}, "num_labelled must have one entry for each of 2 clients"),
        ({"num_labelled": np.array([1, -1])}, "num_labelled must not be negative"),
        ({"class_counts": np.array([1.0])}, "class_counts must be int64"),
        ({"clients": np.array([3, 1])}, "ascending"),
    ],
)
def test_answers_that_are_not_what_the_schema_says(change, line):
    answer = Labelled(np.array([1, 3]), np.array([4, 5]), np.array([9, 0, 0]), np.zeros(0, np.int64))
    back = decode(Labelled, encode(answer))
    assert back.num_labelled.tolist() == [4, 5] and back.class_counts.tolist() == [9, 0, 0]
    with pytest.raises(MessageError, match=line):
        decode(Labelled, encode(replace(answer, **change)))
