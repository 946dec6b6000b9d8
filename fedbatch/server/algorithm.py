"""The server's side of client work: the vectors that it sends, what it makes of those that clients send besides, and
which version of what a client keeps is the valid one.

A client's own vectors have a version: one more than the round in which they were made. The server remembers for every
client the last round of which it took the client's contribution, and names it when it asks again; the client goes on
from there, whatever it has computed since. So a contribution that was thrown away, and a round that is done again after
a resume, leave no trace.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedbatch.aggregation.sums import Aggregate
from fedbatch.clients import work as works
from fedbatch.controllers.phase import Phase
from fedbatch.core.random import Ints
from fedbatch.server import checkpoint, compressed
from fedbatch.server.server import Server
from fedbatch.server.state import ServerState


def asked(server: Server, state: ServerState, phase: Phase) -> Mapping[str, Any]:
    """What plans of this round say to the clients' work besides: fields of `TrainPlan`, all but ``versions``."""
    work = server.task.work(phase.name)
    values: dict[str, Any] = {}
    if sizes := lengths(work, "extras", state):
        values["extras"] = sum(sizes.values())
    if sizes := lengths(work, "shared", state):
        values["shared"] = works.joined(shared(work, state), sizes, state.params)
    if payload := compressed.payload_bytes(server, state):
        values["payload"] = payload
    if keeps(server, phase):
        values["checkpoints"] = np.array(checkpoint.rounds(server.folder / "checkpoints"), np.int64)
    return values


def versions(server: Server, state: ServerState, phase: Phase, clients: Ints) -> Ints:
    """The valid version (K,) of what each client keeps; (0,) where clients keep nothing."""
    if not keeps(server, phase):
        return clients[:0]
    if not len(state.versions):
        return np.zeros(len(clients), np.int64)
    return state.versions.numpy()[np.searchsorted(server.hosts.clients, clients)]


def aggregated(server: Server, state: ServerState, phase: Phase, total: Aggregate) -> tuple[Tensor, dict[str, Any]]:
    """The update (d,) for the server optimizer, and the changes of the state."""
    work: Any = server.task.work(phase.name)
    update, changes = total.mean_update, dict[str, Any]()
    if server.task.compression is not None:
        update = server.task.compression.aggregated(update)
    extras = lengths(work, "extras", state)
    if len(total.clients) and (extras or getattr(work, "shared", {})):
        share = total.weight_sum / population_weight(server, phase)
        now = shared(work, state)
        sent = works.split(total.mean_extras.to(state.params), extras)
        update, moved = work.aggregate(update.to(state.params), sent, now, share)
        changes["shared"] = {**state.shared, **moved}
    if keeps(server, phase):
        known = state.versions.clone() if len(state.versions) else torch.zeros(len(server.hosts.clients)).long()
        known[torch.from_numpy(np.searchsorted(server.hosts.clients, total.clients))] = state.round + 1
        changes["versions"] = known
    return update, changes


def keeps(server: Server, phase: Phase) -> bool:
    """Whether clients keep vectors: for their work, or what compression took from their updates."""
    compression = server.task.compression
    feedback = compression is not None and compression.error_feedback
    return feedback or bool(getattr(server.task.work(phase.name), "own", {}))


def population_weight(server: Server, phase: Phase) -> float:
    """Weight of the updates of all clients, if all took part; an aggregator of single ones weighs all alike."""
    available = server.hosts.num_examples
    sizes = phase.batch_sizes(available)
    some = sizes > 0
    expected = server.task.work(phase.name).num_examples(sizes[some], available[some])
    return float(server.task.weights(expected).sum()) if server.task.aggregator is None else float(some.sum())


def bytes_sent(server: Server, phase: Phase, state: ServerState) -> tuple[int, int]:
    """Bytes from one client and to one client: the model's and what is sent besides; compressed, the real message's."""
    work, size = server.task.work(phase.name), state.params.element_size()
    up, down = (sum(lengths(work, kind, state).values()) for kind in ("extras", "shared"))
    model = size * (state.params.numel() + state.buffers.numel())
    if server.task.compression is not None:
        return compressed.message_bytes(server, phase, state, up), model + size * down
    return model + size * up, model + size * down


def lengths(work: Any, kind: str, state: ServerState) -> dict[str, int]:
    """As `fedbatch.clients.work.lengths`, for the server's model."""
    return works.lengths(work, kind, state.params, state.buffers)


def shared(work: Any, state: ServerState) -> works.Vectors:
    """The server's vectors for a work, zeros where there are none yet."""
    sizes = lengths(work, "shared", state)
    return {n: state.shared[n] if n in state.shared else state.params.new_zeros(size) for n, size in sizes.items()}
