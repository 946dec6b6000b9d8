"""A node's answer to a message: build the job and run the executor."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedbatch.clients.job import Job
from fedbatch.clients.outbox import Outbox
from fedbatch.clients.steps import run_client
from fedbatch.clients.work import lengths, split
from fedbatch.core.random import Ints
from fedbatch.core.transfer import to_device
from fedbatch.metrics.evaluate import example_scores, score_sums
from fedbatch.node.own import OwnFiles, begun
from fedbatch.setup.executor import witness as witness_of
from fedbatch.setup.task import Task
from fedbatch.wire.held_out import EvaluatePlan, Evaluation
from fedbatch.wire.messages import Contribution, TrainPlan, Updates

EVALUATE_BATCH = 512


def train(plan: TrainPlan, task: Task) -> Contribution | Updates:
    """The contribution of ``plan.clients``; clients whose update is not finite are excluded and named."""
    work, clients = task.work(plan.phase), plan.clients
    params, buffers = plan.params.to(task.node_model.params), plan.buffers.to(task.node_model.buffers)

    def job(clients: Ints, batch_sizes: Ints) -> Job:
        made = task.new_job(work, clients, batch_sizes, plan.round, params)
        return replace(made, buffers=buffers, halves=plan.halves, cosine=plan.cosine, shared=plan.shared)

    asked = job(clients, plan.batch_sizes)
    if len(plan.factors):
        asked = replace(asked, weights=asked.weights * plan.factors)
    files, lost = OwnFiles(Path(task.config.run_dir) / "clients"), set[int]()
    if sizes := asked.sizes("own"):
        own, lost = begun(files, plan, sum(sizes.values()))
        asked = replace(asked, own=own)
    outbox, left, fresh = task.outbox(plan.round), OwnFiles(files.folder / "residuals"), set[int]()
    if outbox is not None and outbox.compression.error_feedback:
        outbox.residuals, fresh = begun(left, plan, len(params))
    asked = replace(asked, outbox=outbox)
    if plan.single:
        answer: Contribution | Updates = single_updates(asked, plan)
    else:
        witness = partial(witness_of, task.partition, job, clients, plan.batch_sizes)
        answer = replace(task.execute(asked, plan.executor, witness), round=plan.round)
    for client in answer.excluded.tolist():  # what came of its round is not finite
        files.delete(client, plan.round + 1)
        left.delete(client, plan.round + 1)
    if outbox is not None and isinstance(answer, Contribution):
        answer = compressed(answer, outbox)
    return replace(answer, lost=len(lost | fresh))


def single_updates(job: Job, plan: TrainPlan) -> Updates:
    """Every client's own update, one client after the other."""
    updates, losses = [], []
    for row in range(len(job.clients)):
        result = run_client(job, row)
        updates.append(result.update)
        losses.append(result.loss)
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


def compressed(answer: Contribution, outbox: Outbox) -> Contribution:
    """The answer with every client's compressed update in the place of their sum."""
    clients = answer.clients.tolist()
    payload = torch.cat([outbox.payloads[client] for client in clients]).numpy() if clients else answer.payload
    return replace(
        answer,
        update_sum=answer.update_sum[:0],
        payload=payload,
        sq_errors=np.array([outbox.sq_errors[client] for client in clients]),
        sent_sq_norms=np.array([outbox.sent_sq_norms[client] for client in clients]),
    )


def evaluate(plan: EvaluatePlan, task: Task) -> Evaluation:
    """Sums of the loss and of the task's scores on the held-out part of each client, of the model that it uses."""
    if hasattr(task.work(plan.phase), "own_params"):
        return evaluate_own(plan, task)
    model, loss, at = task.node_model, task.loss, plan.at.double().to(task.train_y.device)
    of_each, width = partial(task.learning.sums, at=at), task.learning.bounds().shape[1]
    model.load(plan.params.to(model.params), plan.buffers.to(model.buffers))
    positions = [task.held_out(int(client)) for client in plan.clients]
    sizes = [len(own) for own in positions]
    if getattr(loss, "per_example", False):
        owners, together = np.repeat(np.arange(len(sizes)), sizes), np.concatenate(positions)
        sums = torch.zeros(len(sizes), width + 1, dtype=torch.float64, device=task.train_y.device)
        for start in range(0, len(owners), EVALUATE_BATCH):
            batch = slice(start, start + EVALUATE_BATCH)
            scores = example_scores(model, loss, of_each, *task.examples(together[batch]))
            sums.index_add_(0, to_device(owners[batch], sums.device), scores)
    else:
        nothing = torch.zeros(width + 1, dtype=torch.float64, device=task.train_y.device)
        rows = [score_sums(model, loss, of_each, *task.examples(own), EVALUATE_BATCH) for own in positions if len(own)]
        filled = iter(rows)
        sums = torch.stack([next(filled) if size else nothing for size in sizes])
    sums = sums.cpu()
    return Evaluation(plan.clients, np.array(sizes), sums[:, :-1].flatten(), sums[:, -1].numpy().copy())


def evaluate_own(plan: EvaluatePlan, task: Task) -> Evaluation:
    """The same of the models that clients use themselves, one after the other."""
    work: Any = task.work(plan.phase)
    model, loss, at = task.node_model, task.loss, plan.at.double().to(task.train_y.device)
    of_each, width = partial(task.learning.sums, at=at), task.learning.bounds().shape[1]
    params, buffers = plan.params.to(model.params), plan.buffers.to(model.buffers)
    sizes = lengths(work, "own", params, buffers)
    files, sums, counts = OwnFiles(Path(task.config.run_dir) / "clients"), [], []
    for client, version in zip(plan.clients.tolist(), plan.versions.tolist(), strict=True):
        kept = files.read(client, version, sum(sizes.values())) if version else None
        own = split(params.new_zeros(sum(sizes.values())) if kept is None else kept.to(params), sizes)
        model.load(
            work.own_params(params, own), work.own_buffers(buffers, own) if hasattr(work, "own_buffers") else buffers
        )
        positions = task.held_out(client)
        counts.append(len(positions))
        nothing = torch.zeros(width + 1, dtype=torch.float64, device=at.device)
        examples = task.examples(positions)
        sums.append(score_sums(model, loss, of_each, *examples, EVALUATE_BATCH) if len(positions) else nothing)
    found = torch.stack(sums).cpu()
    return Evaluation(plan.clients, np.array(counts), found[:, :-1].flatten(), found[:, -1].numpy().copy())
