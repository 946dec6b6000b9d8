"""A node's answer to a message: build the job and run the executor."""

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from fedbatch.clients.job import Job
from fedbatch.core.random import Ints
from fedbatch.metrics.evaluate import example_sums
from fedbatch.setup.task import Task
from fedbatch.wire.messages import Contribution, EvaluatePlan, Evaluation, TrainPlan, Updates

EVALUATE_BATCH = 512


def train(plan: TrainPlan, task: Task) -> Contribution | Updates:
    """The contribution of ``plan.clients``; clients whose update is not finite are excluded and named."""
    work, clients = task.work(plan.phase), plan.clients
    params, buffers = plan.params.to(task.node_model.params), plan.buffers.to(task.node_model.buffers)

    def job(clients: Ints, batch_sizes: Ints) -> Job:
        made = task.new_job(work, clients, batch_sizes, plan.round, params)
        return replace(made, buffers=buffers, halves=plan.halves, cosine=plan.cosine)

    own = job(clients, plan.batch_sizes)
    if plan.single:
        return single_updates(own, plan)
    witness = partial(task.witness, job, clients, plan.batch_sizes)
    return replace(task.execute(own, plan.executor, witness), round=plan.round)


def single_updates(job: Job, plan: TrainPlan) -> Updates:
    """Every client's own update, one client after the other."""
    updates, losses = [], []
    for row in range(len(job.clients)):
        job.model.load(job.params, job.buffers)
        update, loss, _ = job.work.update(job, row)
        updates.append(update)
        losses.append(loss)
    matrix, loss_column = torch.stack(updates), torch.stack(losses)
    good = (matrix.isfinite().all(dim=1) & loss_column.isfinite()).cpu()
    kept = good.numpy()
    return Updates(
        updates=matrix[good.to(matrix.device)].flatten(),
        clients=job.clients[kept],
        num_examples=job.draw.num_examples[kept],
        losses=loss_column.double().cpu().numpy()[kept],
        excluded=job.clients[~kept],
        executor="loop",
        round=plan.round,
    )


def evaluate(plan: EvaluatePlan, task: Task) -> Evaluation:
    """Loss and accuracy sums of the global model on the held-out part of each client."""
    model = task.node_model
    model.load(plan.params.to(model.params), plan.buffers.to(model.buffers))
    counts, correct, losses = [], [], []
    for client in plan.clients:
        index = task.held_out(int(client))
        sums = example_sums(model, task.loss, task.train_x[index], task.train_y[index], EVALUATE_BATCH)
        counts.append(len(index))
        correct.append(sums.correct)
        losses.append(sums.loss_sum)
    return Evaluation(plan.clients, np.array(counts), np.array(correct, np.float64), np.array(losses, np.float64))
