import numpy as np
import pytest
from flwr.app import Message
from flwr.clientapp import ClientApp

from fedbatch.core.errors import ConfigError
from fedbatch.runtime.local import LocalGrid
from fedbatch.server.hosts import Hosts, discover
from fedbatch.wire.codec import encode
from fedbatch.wire.messages import Hosted

HOSTS = Hosts(np.arange(50), np.repeat(np.array([7, 9], dtype=np.uint64), 25), np.full(50, 10))


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
        (lambda i: Hosted(np.array([i]), np.array([1]), "b3" * i), 2, "model: node .* has other frozen parameters"),
    ],
)
def test_what_cannot_work_is_said(answer, nodes, message, monkeypatch):
    monkeypatch.setattr("fedbatch.server.hosts.START_SECONDS", 0.0)
    with pytest.raises(ConfigError, match=message):
        discover(grid(answer), nodes, 0.0)
