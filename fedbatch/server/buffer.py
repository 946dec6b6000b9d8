"""Which updates the server's next step takes, where it does not wait for a whole cohort.

Who is done when follows from the simulated clock, the config and the seed. So a client's work is asked for only when
the step takes its update, with the model that it began with: it computes what it would have computed then.
"""

from dataclasses import replace

import numpy as np
import torch

from fedbatch.asynchronous import FedBuff
from fedbatch.asynchronous.under_way import UnderWay
from fedbatch.clients.cohort import sample_cohort
from fedbatch.controllers.phase import Phase
from fedbatch.core.random import Ints
from fedbatch.server.cohort import Cohort, client_seconds
from fedbatch.server.server import Server
from fedbatch.server.state import ServerState

Part = tuple[ServerState, Phase, Ints]
"""Clients that began with the same model: what the state was then, their phase, and their places in the cohort."""


def next_buffer(server: Server, fedbuff: FedBuff, state: ServerState, phase: Phase) -> tuple[Cohort, list[Part]]:
    """The clients whose updates make the buffer full, with the factors of their staleness, and with what they began.

    First the places that are free go to others, who begin with the state's model. A client at work is not drawn again,
    so that a client and the version that it began with name its work, and its draws, once and for all.
    """
    now = _filled(server, fedbuff, state, phase)
    taken, rest = now.select(slice(phase.cohort_size)), now.select(slice(phase.cohort_size, None))
    in_time = state.round + 1 - rest.versions <= fedbuff.max_staleness
    late = int((~in_time).sum())
    clients, order = np.unique(taken.clients.numpy(), return_index=True)
    versions = taken.versions.numpy()[order]
    parts = _parts(server, state, taken, versions)
    batch_sizes, weights = np.zeros(len(clients), np.int64), np.zeros(len(clients))
    for _, began, places in parts:
        sizes = server.hosts.examples_of(clients[places])
        batch_sizes[places] = began.batch_sizes(sizes)
        weights[places] = server.task.weights(server.task.work(began.name).num_examples(batch_sizes[places], sizes))
    staleness = state.round - versions
    factors = np.asarray(fedbuff.staleness(staleness), np.float64)
    is_plain = bool((factors == 1).all())
    cohort = Cohort(
        clients,
        batch_sizes,
        factors[:0] if is_plain else factors,
        start_seconds=state.totals.simulated_seconds,
        end_seconds=float(taken.due.max()) if len(clients) else None,
        unused=late,
        scale=1.0 if is_plain else float(weights @ factors / weights.sum()),
        columns={
            "staleness_mean": float(staleness.mean()) if len(clients) else float("nan"),
            "staleness_max": int(staleness.max(initial=0)),
            "late_clients": late,
        },
        changes={"under_way": rest.select(in_time).kept(state.round)},
    )
    return cohort, parts


def _parts(server: Server, state: ServerState, taken: UnderWay, versions: Ints) -> list[Part]:
    return [
        (
            replace(state, round=version, params=model["params"], buffers=model["buffers"]),
            server.task.phase(taken.phases[version]),
            np.flatnonzero(versions == version),
        )
        for version, model in sorted(taken.models.items())
    ]


def _filled(server: Server, fedbuff: FedBuff, state: ServerState, phase: Phase) -> UnderWay:
    """The clients under way, and those who begin now."""
    now, config, hosts = state.under_way, server.task.config, server.hosts
    free = fedbuff.at_work(phase.cohort_size) - len(now.clients)
    if free <= 0:
        return now
    others = np.setdiff1d(hosts.clients, now.clients.numpy(), assume_unique=True)
    drawn = sample_cohort(others, "uniform", free, config.seed, state.round)
    drawn = drawn[server.hosts.examples_of(drawn) > 0]
    due = state.totals.simulated_seconds + client_seconds(server, state, phase, drawn)
    model = {"params": state.params, "buffers": state.buffers}
    return now.begun(torch.from_numpy(drawn), state.round, torch.from_numpy(due), model, phase.name)
