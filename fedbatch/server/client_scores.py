"""How the clients fare: the score of each on what it holds out, and percentiles of it over clients."""

from functools import partial

import numpy as np
import torch

from fedbatch.server.exchange import exchange
from fedbatch.server.plausible import check_evaluation
from fedbatch.server.server import Row, Server
from fedbatch.server.state import ServerState
from fedbatch.wire.messages import EvaluatePlan, Evaluation

PERCENTILES = (5, 25, 50, 75, 95)


def of_clients(server: Server, state: ServerState) -> Row:
    """Columns ``client_<score>_p5`` and so on, NaN where no client has a score, and how many answers were refused.

    Raises:
        RunFailedError: a score outside its range.
    """
    task, hosts = server.task, server.hosts
    at = torch.from_numpy(task.learning.at)
    plans = {
        node: EvaluatePlan(state.params, state.buffers, clients, at)
        for node, clients in hosts.by_node(hosts.clients).items()
    }
    check = partial(check_evaluation, server)
    answers, rejected = exchange(server.grid, plans, Evaluation, task.config, state.round, check)
    counts = np.concatenate([answer.counts for answer in answers])
    sums = torch.cat([answer.score_sums for answer in answers]).cpu().numpy().reshape(len(counts), -1)
    scores = task.columns(counts[counts > 0].astype(np.float64), sums[counts > 0], "client_")
    name = f"client_{task.learning.score}"
    known = scores[name][~np.isnan(scores[name])]
    percentiles = np.percentile(known, PERCENTILES) if len(known) else np.full(len(PERCENTILES), np.nan)
    columns: Row = {f"{name}_p{q}": float(value) for q, value in zip(PERCENTILES, percentiles, strict=True)}
    return columns | ({"rejected_evaluations": len(rejected)} if rejected else {})
