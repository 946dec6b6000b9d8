"""A node's contribution under differential privacy: sample, clip, add up and, where it is the client's, add noise."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedbatch.aggregation.sums import Sum
from fedbatch.clients.clip import Clip
from fedbatch.clients.job import Job
from fedbatch.clients.per_example import as_examples
from fedbatch.controllers.phase import Phase
from fedbatch.core.errors import RunFailedError
from fedbatch.core.random import Ints
from fedbatch.executors.choose import SAMPLE_CLIENTS
from fedbatch.privacy.plan import PrivacyPlan
from fedbatch.privacy.randomness import Floats, fingerprint
from fedbatch.privacy.release import add_noise, add_shares
from fedbatch.setup.executor import witness as witness_of
from fedbatch.setup.task import Task
from fedbatch.wire.messages import Contribution, PrivateContribution, PrivatePlan

Sums = tuple[Tensor, Floats, str]
"""Float64 sums (d,) of contributions and (e,) of extra coordinates, and what ran them."""
MOST = 100_000
"""Clients among whom the first few with data are looked for."""
WITNESSES = 16
"""Examples on which executors are compared: always the same, so that nothing follows from who was drawn."""


def train_private(plan: PrivatePlan, task: Task, privacy: PrivacyPlan) -> PrivateContribution:
    """The part of a release that the clients of this node make."""
    privacy = privacy.in_run(plan.nonce)
    phase = replace(task.phase(plan.phase), cohort_size=plan.cohort_size)
    work = task.work(phase.name)
    task.node_model.module.train()
    if not privacy.mechanism.clips_examples:
        sums = client_sums(plan, task, privacy, phase)
    elif work.is_gradient:
        sums = example_sums(plan, task, privacy, phase)
    else:
        sums = local_step_sums(plan, task, privacy, phase, work)
    update, extras, executor = sums
    extra_sums = torch.from_numpy(extras)
    dtype = update.dtype if privacy.mechanism.lattice else plan.params.dtype  # which may not hold large integers
    return PrivateContribution(update.to(dtype), extra_sums, plan.clients, executor, plan.round)


def client_sums(plan: PrivatePlan, task: Task, privacy: PrivacyPlan, phase: Phase) -> Sums:
    """Client level: the sum of clipped updates. A client without data, or with a non-finite update, adds nothing."""
    available = task.partition.sizes(plan.clients)
    clients = plan.clients[available > 0]
    sizes = available[available > 0]
    batches = phase.batch_sizes(sizes)
    work = task.work(phase.name)
    params = plan.params.to(task.node_model.params)

    def job(clients: Ints, batch_sizes: Ints) -> Job:
        made = task.new_job(work, clients, batch_sizes, plan.round, params)
        return replace(made, weights=np.ones(len(clients)), clip=privacy.clip(plan.clip_norm))

    fixed = fixed_clients(task)
    fixed_batches = phase.batch_sizes(task.partition.sizes(fixed))
    witness = partial(witness_of, task.partition, job, fixed, fixed_batches)
    executor = executor_of(task, plan.executor, job(fixed, fixed_batches), witness)
    contribution = run_unseen(task, job(clients, batches), executor, plan.executor, witness)
    squares = np.concatenate([contribution.sq_norms, np.zeros(np.count_nonzero(available == 0))])
    extras = extra_sums(plan, privacy, phase, squares, len(plan.clients))
    return contribution.update_sum.double(), extras, executor


def extra_sums(plan: PrivatePlan, privacy: PrivacyPlan, phase: Phase, squares: Floats, units: int) -> Floats:
    """Extra coordinates (e,) of a release, from the squared lengths (n,) of its clipped contributions.

    ``units`` took part; those without a finite contribution have no length, and are beyond the clip norm.
    """
    extras = [float(squares.sum())] if privacy.has_squares(phase) else []
    if privacy.follows_quantile:
        limit = plan.clip_norm**2 * (1 - 1e-6)  # what was clipped has length C only up to float32
        extras.append(np.count_nonzero(squares < limit) - units / 2)
    return np.array(extras)


def fixed_clients(task: Task) -> Ints:
    """The first few clients with examples on this node, whoever was drawn."""
    first = np.arange(min(len(task.partition), MOST), dtype=np.int64)
    return first[task.partition.sizes(first) > 0][:SAMPLE_CLIENTS]


def executor_of(task: Task, asked: str, fixed: Job, witness: Callable[[], Job]) -> str:
    """The executor, chosen and compared on a job that is always the same, so that it tells nothing of who was drawn.

    Raises:
        RunFailedError: the executor that is asked for is wrong for such jobs.
    """
    if not len(fixed.clients):  # nobody on this node has data
        return "loop" if asked == "auto" else asked
    if asked == "auto":
        return task.executors.chosen(fixed, witness, is_told=getattr(fixed.work, "is_per_example", False))
    if reason := task.executors.unusable(asked, fixed, witness):
        raise RunFailedError(f"executor={asked} cannot run this: {reason}; use executor=auto")
    return asked


def run_unseen(task: Task, job: Job, executor: str, asked: str, witness: Callable[[], Job]) -> Contribution:
    """The contribution of a job whose size is a secret: a failure tells no more than its kind.

    Raises:
        RunFailedError: it failed, and with ``asked=auto`` the loop did too.
    """
    try:
        return task.execute(job, executor, witness)
    except Exception as error:
        if asked == "auto" and executor != "loop":
            return run_unseen(task, job, "loop", "loop", witness)
        raise RunFailedError(f"executor={executor} failed on this node with {type(error).__name__}") from None


def example_sums(plan: PrivatePlan, task: Task, privacy: PrivacyPlan, phase: Phase) -> Sums:
    """Example level: the sum of clipped gradients of all clients' samples, with the noise that clients add."""
    params, key = plan.params.to(task.node_model.params), release_key(plan)
    drawn = [sample_examples(task, privacy, phase, int(client), key) for client in plan.clients]
    job = partial(example_job, task, params, clip=privacy.clip(plan.clip_norm), moment=(plan.round, 0))
    executor = example_executor(task, plan, job)
    positions = np.concatenate(drawn)
    update, squares = clipped_sum(task, job, positions, plan, executor)
    sums = update, extra_sums(plan, privacy, phase, squares, len(positions))
    if not privacy.mechanism.server_adds_noise:
        hidden = hidden_key(privacy, sums[0])
        keys = [(*own_key(task, int(client)), *key, *hidden) for client in plan.clients]
        sums = add_shares(privacy, phase, plan.clip_norm, sums, keys)
    return *sums, executor


def release_key(plan: PrivatePlan) -> tuple[object, ...]:
    """What names a release for its draws: round, parameters, attempt."""
    return plan.round, fingerprint(plan.params), plan.attempt


def own_key(task: Task, client: int) -> tuple[object, ...]:
    """What names a client for its draws: its id and a digest of its data, so that other data see other noise."""
    size = int(task.partition.sizes(np.array([client]))[0])
    own = task.partition.lookup(np.full(size, client), np.arange(size))
    return client, task.data_digests(task.train_x, task.train_y, task.partition, client, "train", own)


def hidden_key(privacy: PrivacyPlan, sums: Tensor) -> tuple[str, ...]:
    """A digest of the sums (d,) under the noise: done again with other rounding, they get other noise.

    Without a secret file there is none, so that a study on other machines is the same up to rounding.
    """
    return (fingerprint(sums),) if privacy.mechanism.secret_file else ()


def local_step_sums(plan: PrivatePlan, task: Task, privacy: PrivacyPlan, phase: Phase, work: Any) -> Sums:
    """Example level with local steps: every step of every client is a release of its own; updates weigh by size."""
    start, round_key = plan.params.to(task.node_model.params), release_key(plan)
    noise = privacy.release_noise(phase, plan.clip_norm, privacy.mechanism.noise_shares(1), len(start))
    clip = privacy.clip(plan.clip_norm)
    executor = example_executor(task, plan, partial(example_job, task, start, clip=clip))
    total = Sum(start)
    for client in plan.clients.tolist():
        size = int(privacy.terms.sizes[client])
        params = start.clone()
        for step in range(privacy.steps(phase)):
            key = (*round_key, step)
            drawn = sample_examples(task, privacy, phase, client, key)
            job = partial(example_job, task, params, clip=clip, moment=(plan.round, step))
            gradient, _ = clipped_sum(task, job, drawn, plan, executor)
            name = (*own_key(task, client), *key, *hidden_key(privacy, gradient))
            gradient, _ = add_noise(privacy, phase, (gradient, np.zeros(0)), noise, name)
            gradient /= privacy.terms.sample_rate(phase) * size
            gradient += work.proximal * (params - start)
            params -= (work.lr * gradient).to(params)
        total.add(start - params, float(size))
    return total.total, np.zeros(0), executor


def sample_examples(task: Task, privacy: PrivacyPlan, phase: Phase, client: int, key: tuple[Any, ...]) -> Ints:
    """Poisson sampling: positions of the client's examples that take part, each of the round's group on its own.

    ``key`` names the release, the round first.
    """
    draws = privacy.randomness.uniform(int(privacy.terms.sizes[client]), "examples", *own_key(task, client), *key)
    group = privacy.terms.in_group(key[0], len(draws), client)
    slots = np.flatnonzero(group & (draws < privacy.terms.draw_rate(phase)))
    return task.partition.lookup(np.full(len(slots), client), slots)


def example_executor(task: Task, plan: PrivatePlan, job: Callable[[Ints], Job]) -> str:
    """What runs examples, chosen on the first few of the data set, whichever were drawn."""
    few, some = (np.arange(min(count, len(task.train_x))) for count in (WITNESSES, SAMPLE_CLIENTS))
    return executor_of(task, plan.executor, job(some), lambda: job(few))


def clipped_sum(
    task: Task, job: Callable[[Ints], Job], positions: Ints, plan: PrivatePlan, executor: str
) -> tuple[Tensor, Floats]:
    """Sum (d,) of the clipped gradients of examples at ``positions`` (n,), and their squared lengths (n,) at most.

    An example whose gradient is not finite adds nothing, so that it cannot move the sum by more than C either.
    """
    if not len(positions):
        return torch.zeros_like(plan.params, dtype=torch.float64, device=task.node_model.params.device), np.zeros(0)
    few = np.arange(min(WITNESSES, len(task.train_x)))
    contribution = run_unseen(task, job(positions), executor, plan.executor, lambda: job(few))
    return contribution.update_sum.double(), contribution.sq_norms


def example_job(task: Task, params: Tensor, positions: Ints, clip: Clip, moment: tuple[int, int] = (0, 0)) -> Job:
    """A job that clips and adds the gradients of the examples at ``positions`` (n,) in a round and local step."""
    work, ids, draw, weights = as_examples(positions, clip)
    return replace(task.job_of(work, ids, draw, weights, params), clip=clip, seeds=task.seeds(positions, *moment))
