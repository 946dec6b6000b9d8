"""A node's answer to a message: build the job and run the executor."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fedbatch.clients.choose import execute
from fedbatch.clients.draw import Draw
from fedbatch.clients.job import ClientWork, Job
from fedbatch.keys import Ints
from fedbatch.messages import Contribution, EvaluatePlan, Evaluation, TrainPlan, Updates
from fedbatch.metrics.evaluate import example_sums
from fedbatch.task import Task

EVALUATE_BATCH = 512


def train(plan: TrainPlan, task: Task) -> Contribution | Updates:
    """The contribution of ``plan.clients``; clients whose update is not finite are excluded and named."""
    work, clients = task.work(plan.phase), plan.clients
    draw = work.draw(task.partition, clients, plan.batch_sizes, task.config.seed, plan.round)
    weights = np.ones(len(clients)) if task.config.weighting == "uniform" else draw.num_examples.astype(np.float64)
    job = new_job(task, plan.params, work, clients, draw, weights)
    job = replace(job, buffers=plan.buffers.to(task.node_model.buffers), halves=plan.halves, cosine=plan.cosine)
    task.node_model.module.train()
    if plan.single:
        return single_updates(job, plan)
    return replace(execute(job, plan.executor), round=plan.round)


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


def new_job(task: Task, params: Tensor, work: ClientWork, clients: Ints, draw: Draw, weights: np.ndarray) -> Job:
    """A job on the node's scratch model and data."""
    model = task.node_model
    return Job(
        model=model,
        loss=task.loss,
        x=task.train_x,
        y=task.train_y,
        work=work,
        clients=clients,
        draw=draw,
        weights=weights,
        params=params.to(model.params),
        buffers=model.buffers.clone(),
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
