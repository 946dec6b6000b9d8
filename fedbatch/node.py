"""A node's answer to a message: build the job, run the executor, leave out what is not finite."""

from dataclasses import replace

import numpy as np

from fedbatch.clients.choose import EXECUTORS, chosen
from fedbatch.clients.job import Job
from fedbatch.messages import Contribution, EvaluatePlan, Evaluation, TrainPlan
from fedbatch.metrics.evaluate import example_sums
from fedbatch.task import Task

EVALUATE_BATCH = 512


def train(plan: TrainPlan, task: Task) -> Contribution:
    """The contribution of ``plan.clients``; clients whose update is not finite are excluded and named."""
    work = task.work(plan.phase)
    model = task.node_model
    clients = plan.clients
    draw = work.draw(task.partition, clients, plan.batch_sizes, task.config.seed, plan.round)
    weights = draw.num_examples if task.config.weighting == "examples" else np.ones(len(clients))
    job = Job(
        model=model,
        loss=task.loss,
        x=task.train_x,
        y=task.train_y,
        work=work,
        clients=clients,
        draw=draw,
        weights=weights.astype(np.float64),
        params=plan.params.to(model.params),
        buffers=plan.buffers.to(model.buffers),
        halves=plan.halves,
        cosine=plan.cosine,
    )
    model.module.train()
    name = chosen(job) if plan.executor == "auto" else plan.executor
    execute = EXECUTORS[name]
    contribution = replace(execute(job), executor=name)
    finite = np.isfinite(contribution.sq_norms) & np.isfinite(contribution.losses)
    if finite.all():
        return contribution
    # Rare, so plain: a sum that holds one bad update is lost, and the good clients are computed once more.
    kept = replace(job, clients=clients[finite], draw=draw.select(finite), weights=job.weights[finite])
    if not finite.any():
        execute = EXECUTORS["loop"]  # the one that takes a job of no clients
    return replace(execute(kept), excluded=clients[~finite], executor=name)


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
