"""The averaged parameters beside the last ones: one more vector, and scores of its own."""

import torch
from torch import Tensor

from fedbatch.metrics.evaluate import example_sums
from fedbatch.server.server import Row, Server

Average = dict[str, Tensor]
"""``params`` (d,), ``buffers`` (m,) and how many ``rounds`` are in them; moved in place as parameters are stepped."""


def moved(server: Server, average: Average, batches: float) -> Average:
    """The average with the parameters after a round; empty where the run has none.

    Args:
        server: has the parameters.
        average: so far; empty before the first round.
        batches: global batch of the round over that of the first phase.
    """
    if server.averaging is None:
        return {}
    model = server.optimizer.model
    params, buffers = model.params.detach(), model.buffers
    if not average:
        return {"params": params.clone(), "buffers": buffers.clone(), "rounds": torch.ones(1, dtype=torch.int64)}
    weight = server.averaging.weight(int(average["rounds"]), batches)
    average["params"].lerp_(params, weight)
    average["buffers"].lerp_(buffers, weight)
    return {**average, "rounds": average["rounds"] + 1}


def average_scores(server: Server, average: Average) -> Row:
    """Scores of the averaged parameters on the test split; nothing where there are none."""
    if not average:
        return {}
    task, model = server.task, server.optimizer.model
    with model.unchanged(), torch.no_grad():
        model.load(average["params"], average["buffers"])
        sums = example_sums(model, task.loss, task.of_each, task.test_x, task.test_y)
    return task.scores(sums, "average_test_")
