"""Clients whose losses are quadratic and have different minima: where local steps drift and the answer is known.

``Quadratic.run`` does rounds with the executors and the sums of the package; ``gradient`` is NumPy of its own.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from fedbatch.aggregation.sums import combine
from fedbatch.clients import work as works
from fedbatch.clients.job import Job
from fedbatch.clients.own import OwnVectors
from fedbatch.data.partition import IndexPartition
from fedbatch.executors.loop import loop
from fedbatch.models.flat import FlatModel

CLIENTS, EXAMPLES, SIZE = 4, 6, 3


class HalfSquares:
    """Half of the squared error of one output, a mean over examples."""

    per_example = True

    def __call__(self, output, y, reduction="mean"):
        squares = (output[:, 0] - y).square() / 2
        return squares.mean() if reduction == "mean" else squares


class Quadratic:
    """``f_k(w) = |X_k w - y_k|^2 / 2n`` with X of unequal curvature; all in float64."""

    def __init__(self, clients=CLIENTS, spread=3.0):
        rng = np.random.default_rng(0)
        self.clients = np.arange(clients)
        self.x = rng.normal(size=(clients, EXAMPLES, SIZE)) * np.linspace(0.5, 1.5, clients)[:, None, None]
        self.y = np.einsum("kni,ki->kn", self.x, rng.normal(size=(clients, SIZE)) * spread)

    def gradient(self, client, w):
        """Of one client's mean loss at w."""
        return self.x[client].T @ (self.x[client] @ w - self.y[client]) / EXAMPLES

    def minimum(self):
        """Of the mean of all clients' losses."""
        curvature = np.einsum("kni,knj->ij", self.x, self.x)
        return np.linalg.solve(curvature, np.einsum("kni,kn->i", self.x, self.y))

    def job(self, work, cohort, params, round_=0, batch=EXAMPLES, seed=0):
        """A round of clients, each on batches of ``batch`` examples."""
        model = FlatModel(nn.Linear(SIZE, 1, bias=False).double())
        partition = IndexPartition.from_assignment(np.repeat(self.clients, EXAMPLES))
        draw = work.draw(partition, cohort, np.full(len(cohort), batch), seed, round_)
        x, y = torch.from_numpy(self.x.reshape(-1, SIZE)), torch.from_numpy(self.y.reshape(-1))
        weights, buffers = np.ones(len(cohort)), torch.zeros(0, dtype=torch.float64)
        return Job(
            model=model,
            loss=HalfSquares(),
            x=x,
            y=y,
            work=work,
            clients=cohort,
            draw=draw,
            weights=weights,
            params=params,
            buffers=buffers,
            round=round_,
        )

    def run(self, work, cohorts, executor=loop, outer=lambda params: torch.optim.SGD(params, 1.0)):
        """Global parameters after each round of a server that steps along the mean update; leaves ``kept``."""
        params, kept, points = torch.zeros(SIZE, dtype=torch.float64), {}, []
        optimizer = outer([params])
        job = self.job(work, self.clients, params)
        extras = job.sizes("extras")
        shared = works.split(params.new_zeros(sum(job.sizes("shared").values())), job.sizes("shared"))
        zeros = params.new_zeros(sum(job.sizes("own").values()))
        for round_, cohort in enumerate(cohorts):
            cohort, before = np.asarray(cohort), dict(kept)
            own = OwnVectors(lambda ids, before=before: torch.stack([before.get(i, zeros) for i in ids.tolist()]))
            flat = works.joined(shared, shared, params)
            job = replace(self.job(work, cohort, params.clone(), round_), own=own, shared=flat)
            total = combine([executor(job)])
            update = total.mean_update
            if hasattr(work, "aggregate"):
                share = len(cohort) / len(self.clients)
                update, shared = work.aggregate(update, works.split(total.mean_extras, extras), shared, share)
            params.grad, kept = update, kept | own.after
            optimizer.step()
            points.append(params.numpy().copy())
        self.kept = kept
        return np.array(points)
