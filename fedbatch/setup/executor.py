"""On which job executors are compared, and whether the one that a config names can run what the run asks of it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fedbatch.clients.clip import Clip
from fedbatch.clients.job import Job
from fedbatch.clients.per_example import as_examples
from fedbatch.core.errors import ConfigError
from fedbatch.core.random import Ints
from fedbatch.data.partition import Partition
from fedbatch.executors.agreement import SINGLE
from fedbatch.models.dropout import own_generators

if TYPE_CHECKING:  # a task asks this module about itself
    from fedbatch.setup.task import Task


def witness(partition: Partition, job: Callable[[Ints, Ints], Job], clients: Ints, batch_sizes: Ints) -> Job:
    """The job on which executors are compared: two of ``clients``, and the client with the fewest examples."""
    sizes = partition.sizes(np.arange(min(len(partition), 100_000)))
    smallest = int(np.where(sizes > 0, sizes, sizes.max()).argmin())
    few = clients[:2]
    try:
        partition.lookup(np.array([smallest]), np.zeros(1, np.int64))
        few = np.unique([*few, smallest])
    except IndexError:  # another node's client
        pass
    return job(few, np.minimum(batch_sizes.max(), partition.sizes(few)))


def check_executor(task: "Task") -> None:
    """Refuse an executor that is wrong for this model, or cannot do the work of a phase.

    Raises:
        ConfigError: with the reason.
    """
    name, params = task.config.executor, task.node_model.params.clone()
    task.node_model.module.train()
    for phase in task.controller.phases:
        clients = np.arange(min(2, len(task.partition)), dtype=np.int64)
        sizes = task.partition.sizes(clients)
        batches = phase.batch_sizes(sizes)
        make = partial(task.new_job, task.work(phase.name), round_=0, params=params)
        job = witness(task.partition, make, clients, np.maximum(batches, 1))
        job = replace(job, outbox=task.outbox(0))
        if task.privacy is not None and task.privacy.mechanism.clips_examples:
            clip = Clip(1.0, task.privacy.mechanism.clipping == "per_layer")
            job = replace(task.job_of(*as_examples(np.arange(min(SINGLE, len(task.train_y))), clip), params), clip=clip)
        with own_generators(task.node_model.is_random):
            reason = task.executors.unusable(name, job)
        if reason:
            raise ConfigError(f"executor={name} cannot run this: {reason}; use executor=auto")
