"""Which node hosts which client."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp import Grid

from fedbatch.core.errors import ConfigError
from fedbatch.core.random import Ints
from fedbatch.data.meaning import difference
from fedbatch.runtime import flower
from fedbatch.server.ask import shortened
from fedbatch.wire.check import MessageError
from fedbatch.wire.codec import decode
from fedbatch.wire.messages import Hosted

POLL_SECONDS = 0.5
NOTHING: Mapping[str, str] = MappingProxyType({})
START_SECONDS = 120.0
"""At least so long is waited for the first answers: until then a node starts its process, imports and loads data."""
MOST_EXAMPLES = 10**9
"""Of a client."""
MOST_TIMES = 100.0
"""As many examples as a typical client of the other nodes: nobody gets all the say by claiming more."""


@dataclass(frozen=True)
class Hosts:
    """The population as the nodes report it.

    Attributes:
        clients: int64 (P,) ids, ascending.
        nodes: int64 (P,) node that hosts each.
        num_examples: int64 (P,) training examples of each.
    """

    clients: Ints
    nodes: np.ndarray[Any, np.dtype[np.uint64]]
    num_examples: Ints

    @cached_property
    def firsts(self) -> dict[int, int]:
        """The first client of each node, which names a node from one start of it to the next."""
        return {node: int(clients[0]) for node, clients in self.by_node(self.clients).items()}

    def examples_of(self, clients: Ints) -> Ints:
        """Training examples (K,) of clients (K,)."""
        return self.num_examples[np.searchsorted(self.clients, clients)]

    def by_node(self, cohort: Ints) -> dict[int, Ints]:
        """The clients of a cohort, ascending ids, grouped by node in the order of each node's first client."""
        nodes = self.nodes[np.searchsorted(self.clients, cohort)]
        order = dict.fromkeys(nodes.tolist())
        return {node: cohort[nodes == node] for node in order}


def discover(
    grid: Grid, num_nodes: int, timeout: float | None, frozen: str = "", meaning: Mapping[str, str] = NOTHING
) -> Hosts:
    """Wait for ``num_nodes`` nodes and ask each which clients it hosts.

    Args:
        grid: where they are.
        num_nodes: as many are waited for.
        timeout: of a round, in seconds; None for as long as it takes. Here it is `START_SECONDS` at least.
        frozen: digest of what the server's model holds and nobody sends, which that of each node must have.
        meaning: of the server's data and model, which nodes with data of their own must share.

    Raises:
        ConfigError: too few nodes in time, a node that cannot answer, whose model is another one, or two nodes that
            host the same client.
    """
    timeout = None if timeout is None else max(timeout, START_SECONDS)
    deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
    while len(nodes := list(grid.get_node_ids())) < num_nodes:
        if time.monotonic() > deadline:
            raise ConfigError(
                f"nodes: {len(nodes)} of {num_nodes} are connected; start the others or set nodes={len(nodes)}"
            )
        time.sleep(POLL_SECONDS)
    # Flower wants every message to carry a record, even where the question is all there is.
    question = RecordDict({"plan": ConfigRecord({"ask": "hosted"})})
    messages = [grid.create_message(question, "query", node, "hosts") for node in nodes]
    clients, hosts, sizes = [], [], []
    for reply in grid.send_and_receive(messages, timeout=timeout):
        if reply.has_error():
            raise ConfigError(
                f"node {reply.metadata.src_node_id} cannot start: {shortened(flower.reason(reply.error))}"
            )
        try:
            answer = decode(Hosted, reply.content)
        except MessageError as error:
            raise ConfigError(f"node {reply.metadata.src_node_id}: {shortened(error)}") from error
        if answer.frozen != frozen:
            raise ConfigError(
                f"model: node {reply.metadata.src_node_id} has other frozen parameters than the server; give both the "
                "same files, and the same versions of packages"
            )
        if other := difference(meaning, answer.meaning):
            raise ConfigError(
                f"{in_words(reply.metadata.src_node_id, answer.clients)}: {other}; write its column as the "
                "server's data have it, with examples of every class and category, or leave the node out"
            )
        clients.append(answer.clients)
        sizes.append(answer.num_examples)
        hosts.append(np.full(len(answer.clients), reply.metadata.src_node_id, dtype=np.uint64))
    if len(clients) < len(nodes):
        raise ConfigError(
            f"nodes: {len(nodes) - len(clients)} of {len(nodes)} did not say within {timeout or 0:.0f} s which clients "
            "they host; look at their logs, or raise round_timeout_seconds"
        )
    ids = np.concatenate(clients)
    order = np.argsort(ids, kind="stable")
    if (np.diff(ids[order]) == 0).any():
        raise ConfigError("two nodes host the same client; give each node its own partition-id")
    return Hosts(ids[order], np.concatenate(hosts)[order], np.concatenate(sizes)[order])


def in_words(node: int, clients: Ints) -> str:
    """A node with clients (K,) of its own, which say which machine it is.

    >>> in_words(3, np.array([7])), in_words(3, np.array([7, 9]))
    ('node 3 (client 7)', 'node 3 (clients 7 to 9)')
    """
    if not len(clients):
        return f"node {node}"
    first, last = clients[0], clients[-1]
    return f"node {node} (client {first})" if first == last else f"node {node} (clients {first} to {last})"


def check_hosts(hosts: Hosts, known: Ints, exact: bool) -> None:
    """Each node hosts clients of the population, with as many examples as can be true.

    Args:
        hosts: as nodes report it, of the whole population.
        known: int64 (P,) examples of each client in the run's own data; a node may have data of its own.
        exact: whether nobody may have other data, as under privacy.

    Raises:
        ConfigError: naming a node for which that does not hold.
    """
    wrong = hosts.clients != np.arange(len(hosts.clients))
    if wrong.any():
        node, client = hosts.nodes[wrong][0], hosts.clients[wrong][0]
        raise ConfigError(f"node {node} hosts client {client}, and clients are numbered 0 .. {len(hosts.clients) - 1}")
    other = hosts.num_examples != known
    for node in np.unique(hosts.nodes[other]):
        own = hosts.nodes == node
        typical = float(np.median(hosts.num_examples[~own])) if not own.all() else float("inf")
        most = min(MOST_EXAMPLES, max(MOST_TIMES * typical, float(known[own].max())))
        row = int(np.argmax(np.where(own & other, hosts.num_examples, -1)))
        said = f"node {node} says that client {hosts.clients[row]} has {hosts.num_examples[row]} examples"
        if exact:
            raise ConfigError(f"{said}; a private run takes {known[row]} from its config, as every node must")
        if hosts.num_examples[row] > most:
            raise ConfigError(f"{said}, where {most:.0f} is the most that is taken; check its data or leave it out")
