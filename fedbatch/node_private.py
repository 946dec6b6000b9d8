"""A node's contribution under differential privacy: sample, clip, add up and, where it is the client's, add noise."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedbatch.aggregate import Sum
from fedbatch.batch.phases import Phase
from fedbatch.clients.clip import Clip
from fedbatch.clients.job import Job
from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.clients.per_example import as_examples
from fedbatch.keys import Ints
from fedbatch.messages import PrivateContribution, PrivatePlan
from fedbatch.privacy.plan import PrivacyPlan
from fedbatch.privacy.randomness import Floats, fingerprint
from fedbatch.privacy.release import add_noise
from fedbatch.task import Task

Sums = tuple[Tensor, Floats, str]
"""Float64 sums (d,) of contributions and (e,) of extra coordinates, and what ran them."""
WITNESSES = 4
"""Examples on which executors are compared: always the same, so that nothing follows from who was drawn."""


def train_private(plan: PrivatePlan, task: Task, privacy: PrivacyPlan) -> PrivateContribution:
    """The part of a release that the clients of this node make."""
    privacy = privacy.in_run(plan.nonce)
    phase = replace(task.phase(plan.phase), cohort_size=plan.cohort_size)
    work = task.work(phase.name)
    task.node_model.module.train()
    if privacy.mechanism.unit == "client":
        sums = client_sums(plan, task, privacy, phase)
    elif isinstance(work, LocalSGD):
        sums = local_step_sums(plan, task, privacy, phase, work)
    else:
        sums = example_sums(plan, task, privacy, phase)
    update, extras, executor = sums
    extra_sums = torch.from_numpy(extras)
    return PrivateContribution(update.to(plan.params.dtype), extra_sums, plan.clients, executor, plan.round)


def client_sums(plan: PrivatePlan, task: Task, privacy: PrivacyPlan, phase: Phase) -> Sums:
    """Client level: the sum of clipped updates. A client without data, or with a non-finite update, adds nothing."""
    available = task.partition.sizes(plan.clients)
    clients = plan.clients[available > 0]
    sizes = available[available > 0]
    batches = sizes if phase.client_batch_size is None else np.minimum(phase.client_batch_size, sizes)
    work = task.work(phase.name)
    params = plan.params.to(task.node_model.params)

    def job(clients: Ints, batch_sizes: Ints) -> Job:
        made = task.new_job(work, clients, batch_sizes, plan.round, params)
        return replace(made, weights=np.ones(len(clients)), clip=privacy.clip(plan.clip_norm))

    witness = partial(task.witness, job, clients, batches)
    contribution = task.execute(job(clients, batches), plan.executor if len(clients) else "loop", witness)
    squares = contribution.sq_norms
    extras = [float(squares.sum())] if privacy.has_squares(phase) else []
    if privacy.follows_quantile:
        limit = plan.clip_norm**2 * (1 - 1e-6)  # what was clipped has length C only up to float32
        within = np.count_nonzero(squares < limit) + np.count_nonzero(available == 0)
        extras.append(within - len(plan.clients) / 2)
    return contribution.update_sum.double(), np.array(extras), contribution.executor


def example_sums(plan: PrivatePlan, task: Task, privacy: PrivacyPlan, phase: Phase) -> Sums:
    """Example level: the sum of clipped gradients of the sampled examples of all clients, with each client's noise."""
    params, key = plan.params.to(task.node_model.params), release_key(plan)
    drawn = [sample_examples(task, privacy, phase, int(client), key) for client in plan.clients]
    update, squares, executor = clipped_sum(task, privacy, params, np.concatenate(drawn), plan)
    sums = update, np.array([squares] if privacy.has_squares(phase) else [])
    noise = privacy.release_noise(phase, plan.clip_norm, privacy.mechanism.noise_shares(1), len(params))
    for client in plan.clients:
        sums = add_noise(privacy, phase, sums, noise, (*own_key(task, int(client)), *key))
    return *sums, executor


def release_key(plan: PrivatePlan) -> tuple[object, ...]:
    """What names a release for its draws: round, parameters, attempt."""
    return plan.round, fingerprint(plan.params), plan.attempt


def own_key(task: Task, client: int) -> tuple[object, ...]:
    """What names a client for its draws: its id and a digest of its data, so that other data see other noise."""
    size = int(task.partition.sizes(np.array([client]))[0])
    own = task.partition.lookup(np.full(size, client), np.arange(size))
    return client, task.data_digests(task.train_x, task.train_y, task.partition, client, "train", own)


def local_step_sums(plan: PrivatePlan, task: Task, privacy: PrivacyPlan, phase: Phase, work: LocalSGD) -> Sums:
    """Example level with local steps: every step of every client is a release of its own; updates weigh by size."""
    start, round_key = plan.params.to(task.node_model.params), release_key(plan)
    noise = privacy.release_noise(phase, plan.clip_norm, privacy.mechanism.noise_shares(1), len(start))
    total, executor = Sum(start), ""
    for client in plan.clients.tolist():
        size = int(privacy.terms.sizes[client])
        params = start.clone()
        for step in range(privacy.steps(phase)):
            key = (*round_key, step)
            drawn = sample_examples(task, privacy, phase, client, key)
            gradient, _, name = clipped_sum(task, privacy, params, drawn, plan, step)
            gradient, _ = add_noise(privacy, phase, (gradient, np.zeros(0)), noise, (*own_key(task, client), *key))
            gradient /= privacy.terms.sample_rate(phase) * size
            gradient += work.proximal * (params - start)
            params -= (work.lr * gradient).to(params)
            executor = executor or name
        total.add(start - params, float(size))
    return total.total, np.zeros(0), executor


def sample_examples(task: Task, privacy: PrivacyPlan, phase: Phase, client: int, key: tuple[Any, ...]) -> Ints:
    """Poisson sampling: positions of the client's examples that take part, each on its own with the phase's q."""
    draws = privacy.randomness.uniform(int(privacy.terms.sizes[client]), "examples", *own_key(task, client), *key)
    slots = np.flatnonzero(draws < privacy.terms.sample_rate(phase))
    return task.partition.lookup(np.full(len(slots), client), slots)


def clipped_sum(
    task: Task, privacy: PrivacyPlan, params: Tensor, positions: Ints, plan: PrivatePlan, step: int = 0
) -> tuple[Tensor, float, str]:
    """Sum (d,) of the clipped gradients of examples, sum of their squared lengths, and what ran them.

    An example whose gradient is not finite adds nothing, so that it cannot move the sum by more than C either.
    """
    if not len(positions):
        return torch.zeros_like(params, dtype=torch.float64), 0.0, ""
    job = partial(example_job, task, params, clip=privacy.clip(plan.clip_norm), moment=(plan.round, step))
    few = np.arange(min(WITNESSES, len(task.train_x)))
    contribution = task.execute(job(positions), plan.executor, lambda: job(few))
    return contribution.update_sum.double(), float(contribution.sq_norms.sum()), contribution.executor


def example_job(task: Task, params: Tensor, positions: Ints, clip: Clip, moment: tuple[int, int] = (0, 0)) -> Job:
    """A job that clips and adds the gradients of the examples at ``positions`` (n,) in a round and local step."""
    work, ids, draw, weights = as_examples(positions, clip)
    return replace(task.job_of(work, ids, draw, weights, params), clip=clip, seeds=task.seeds(positions, *moment))
