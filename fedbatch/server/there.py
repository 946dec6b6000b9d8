"""Which clients can be asked now, or when the next one comes."""

import numpy as np

from fedbatch.core.errors import RunFailedError
from fedbatch.core.random import Ints
from fedbatch.server.server import Server


class NobodyComesError(Exception):
    """No client is there any more; the run is over."""


def who_is_there(server: Server, clock: float) -> tuple[Ints, float]:
    """Clients that can be asked, and when: now, or as soon as one comes.

    Without availability and sampler they are all clients. Else they have examples, and their nodes are connected.

    Raises:
        NobodyComesError: nobody will come.
        RunFailedError: a model of one's own contradicts itself.
    """
    if server.availability is None:
        hosts = server.hosts
        return hosts.clients if server.sampler is None else hosts.clients[hosts.num_examples > 0], clock
    known, seed = reachable(server), server.task.config.seed
    there = known[server.availability.is_there(known, clock, seed)]
    if len(there):
        return there, clock
    later = server.availability.next_seconds(known, clock, seed)
    if later == float("inf"):
        raise NobodyComesError(
            f"availability: no client is there any more after {clock:,.0f} simulated seconds, so that the run ends"
        )
    there = known[server.availability.is_there(known, later, seed)]
    if later <= clock or not len(there):
        name = type(server.availability).__name__
        raise RunFailedError(f"availability: {name} says that a client comes at {later:g} seconds, and nobody is there")
    return there, later


def reachable(server: Server) -> Ints:
    """Clients with examples whose nodes are connected; where no node is, all, and the round says what is wrong."""
    hosts = server.hosts
    connected = np.isin(hosts.nodes, np.array(list(server.grid.get_node_ids()), dtype=hosts.nodes.dtype))
    if not connected.any():
        connected[:] = True
    return hosts.clients[connected & (hosts.num_examples > 0)]
