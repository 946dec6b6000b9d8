"""A job that does not fit in memory is done in two halves, and those in halves again, down to one client."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fedbatch.clients.job import Executor, Job
from fedbatch.wire.messages import Contribution

log = logging.getLogger("fedbatch")


def within_memory(executor: Executor, job: Job) -> Contribution:
    """The contribution of a job, whatever part of it fits at a time.

    Raises:
        RuntimeError: not even one client fits.
    """
    try:
        return executor(job)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(job.clients) < 2:
            raise
    middle = len(job.clients) // 2
    if job.clip is None:  # under privacy the number is a secret, for it tells how many were drawn
        log.warning("out of memory with %d clients: going on with %d at a time", len(job.clients), middle)
    parts = [job.select(rows) for rows in (slice(None, middle), slice(middle, None))]
    return _joined(*(within_memory(executor, part) for part in parts))


def is_out_of_memory(error: Exception) -> bool:
    """CUDA has an error of its own; on a CPU torch raises a RuntimeError that names its allocator."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _joined(first: Contribution, second: Contribution) -> Contribution:
    columns = ("clients", "weights", "num_examples", "sq_norms", "losses", "half_dots", "half_sq_diffs", "excluded")
    values: dict[str, Any] = {n: np.concatenate([getattr(first, n), getattr(second, n)]) for n in columns}
    values |= {n: getattr(first, n) + getattr(second, n) for n in ("update_sum", "buffer_sum", "unit_sum")}
    if len(values["half_dots"]) < len(values["clients"]):  # as in one job: all clients have halves, or none
        values |= {n: np.zeros(0) for n in ("half_dots", "half_sq_diffs")}
    return replace(first, **values)
