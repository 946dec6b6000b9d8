"""How the clients fare: the score of each on what it holds out, and percentiles of it over clients."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedbatch.server import algorithm
from fedbatch.server.exchange import exchange
from fedbatch.server.plausible import check_evaluation
from fedbatch.server.server import Row, Server
from fedbatch.server.state import ServerState
from fedbatch.wire.held_out import EvaluatePlan, Evaluation

PERCENTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class ClientScores:
    """What the clients' own held-out examples say of the model.

    Attributes:
        table: columns ``client``, ``examples``, ``loss`` and the task's scores, of clients that hold examples out.
        rejected: answers that were refused.
    """

    table: dict[str, npt.NDArray[Any]]
    rejected: int


def of_clients(server: Server, state: ServerState) -> Row:
    """Columns ``client_<score>_p5`` and so on, NaN where no client has a score, and how many answers were refused.

    Raises:
        RunFailedError: a score outside its range.
    """
    found, name = ask_clients(server, state), server.task.learning.score
    scores = found.table[name]
    known = scores[~np.isnan(scores)]
    percentiles = np.percentile(known, PERCENTILES) if len(known) else np.full(len(PERCENTILES), np.nan)
    columns: Row = {f"client_{name}_p{q}": float(value) for q, value in zip(PERCENTILES, percentiles, strict=True)}
    return columns | ({"rejected_evaluations": found.rejected} if found.rejected else {})


def ask_clients(server: Server, state: ServerState) -> ClientScores:
    """Ask all nodes for the sums of their clients, and score each client.

    Raises:
        RunFailedError: a score outside its range, or too few answers.
    """
    task, hosts = server.task, server.hosts
    at = torch.from_numpy(task.learning.at)
    phase = server.phase(state.control)
    plans = {
        node: EvaluatePlan(
            state.params, state.buffers, clients, at, phase.name, algorithm.versions(server, state, phase, clients)
        )
        for node, clients in hosts.by_node(hosts.clients).items()
    }
    check = partial(check_evaluation, server)
    answers, rejected = exchange(server.grid, plans, Evaluation, task.config, state.round, check)
    counts = np.concatenate([answer.counts for answer in answers])
    sums = torch.cat([answer.score_sums for answer in answers]).cpu().numpy().reshape(len(counts), -1)
    clients, losses = (np.concatenate([getattr(a, name) for a in answers]) for name in ("clients", "loss_sums"))
    there = counts > 0
    columns = task.columns(counts[there].astype(np.float64), sums[there], "client_")
    scores = {name.removeprefix("client_"): values for name, values in columns.items()}
    plain = {"client": clients[there], "examples": counts[there], "loss": losses[there] / counts[there]}
    return ClientScores(plain | scores, len(rejected))
