import numpy as np
import pytest
from flwr.app import Message
from flwr.clientapp import ClientApp

from fedbatch.errors import ConfigError
from fedbatch.hosts import Hosts, discover, sample_cohort
from fedbatch.messages import Hosted, encode
from fedbatch.runtime.local import LocalGrid

HOSTS = Hosts(np.arange(50), np.repeat(np.array([7, 9], dtype=np.uint64), 25), np.full(50, 10))


def test_uniform_cohorts_are_distinct_sorted_and_fair():
    cohorts = [sample_cohort(HOSTS, "uniform", 10, seed=0, round_=r) for r in range(2000)]
    assert all(len(c) == 10 and (np.diff(c) > 0).all() for c in cohorts)
    counts = np.bincount(np.concatenate(cohorts), minlength=50)
    assert (abs(counts - 400) < 5 * np.sqrt(400 * 0.8)).all()


def test_poisson_cohorts_vary_in_size_as_binomial():
    sizes = np.array([len(sample_cohort(HOSTS, "poisson", 10, seed=0, round_=r)) for r in range(3000)])
    assert abs(sizes.mean() - 10) < 4 * np.sqrt(8 / 3000)  # 50 clients at probability 0.2: variance 8
    assert sizes.var() == pytest.approx(8, rel=0.15)


def test_all_is_everybody():
    assert np.array_equal(sample_cohort(HOSTS, "all", 3, 0, 0), HOSTS.clients)


def test_a_cohort_splits_over_its_nodes():
    by_node = HOSTS.by_node(np.array([3, 24, 25, 40]))
    assert {node: clients.tolist() for node, clients in by_node.items()} == {7: [3, 24], 9: [25, 40]}


def grid(answer):
    app = ClientApp()

    @app.query()
    def query(message, context):
        return Message(encode(answer(context.node_config["partition-id"])), reply_to=message)

    return LocalGrid(app, 2, {})


def test_discover_collects_who_hosts_whom():
    hosts = discover(grid(lambda i: Hosted(np.array([1 - i, 3 - i]), np.array([10 + i, 20 + i]))), 2, None)
    assert hosts.clients.tolist() == [0, 1, 2, 3] and hosts.num_examples.tolist() == [11, 10, 21, 20]
    assert hosts.nodes.tolist() == [3, 2, 3, 2]


@pytest.mark.parametrize(
    ("answer", "nodes", "message"),
    [
        (lambda i: Hosted(np.array([5]), np.array([1])), 2, "two nodes host the same client"),
        (lambda i: Hosted(np.array([5, 4]), np.array([1, 1])), 2, "ascending"),
        (lambda i: 1 / 0, 2, "cannot start: ZeroDivisionError"),
        (lambda i: Hosted(np.array([i]), np.array([1])), 3, "nodes: 2 of 3 are connected"),
    ],
)
def test_what_cannot_work_is_said(answer, nodes, message):
    with pytest.raises(ConfigError, match=message):
        discover(grid(answer), nodes, 0.0)
