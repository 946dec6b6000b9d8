"""A job that does not fit in memory is done in two halves, and those in halves again, down to one client."""

import logging
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fedbatch.clients.job import Executor, Job
from fedbatch.wire.messages import Contribution

log = logging.getLogger("fedbatch")

WORDS = (
    "can't allocate memory",  # a CPU's allocator
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # where there is no memory for its workspace
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_SUPPORTED",  # where no algorithm has the workspace that it needs, or can count its input
    "CUDNN_STATUS_INTERNAL_ERROR",
    "Unable to find an engine to execute",
    "valid cuDNN algorithm",
    "canUse32BitIndexMath",
)
"""What errors say that come of too large a job, though they have no type of their own."""


class Memory:
    """Runs what fits at a time, and remembers of each kind of job how many clients did not."""

    def __init__(self) -> None:
        self._most: dict[Hashable, int] = {}

    def run(self, executor: Executor, job: Job, kind: Hashable) -> Contribution:
        """The contribution of a job, by halves where the whole does not fit, or where its like did not before.

        Raises:
            RuntimeError: not even one client fits.
        """
        count = len(job.clients)
        if count <= self._most.get(kind, count):
            try:
                return executor(job)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or count < 2:
                    raise
            self._most[kind] = count - count // 2
            if job.params.is_cuda:  # what its libraries ask for does not come from torch's own store
                torch.cuda.empty_cache()
            if job.clip is None:  # under privacy the number is a secret, for it tells how many were drawn
                log.warning("out of memory with %d clients: going on with %d at a time", count, count // 2)
        parts = [job.select(rows) for rows in (slice(None, count // 2), slice(count // 2, None))]
        return _joined(*(self.run(executor, part, kind) for part in parts))


def is_out_of_memory(error: Exception) -> bool:
    """Whether a smaller job may do."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in WORDS)


def _joined(first: Contribution, second: Contribution) -> Contribution:
    columns = ("clients", "weights", "num_examples", "sq_norms", "losses", "half_dots", "half_sq_diffs", "excluded")
    values: dict[str, Any] = {n: np.concatenate([getattr(first, n), getattr(second, n)]) for n in columns}
    values |= {
        n: getattr(first, n) + getattr(second, n) for n in ("update_sum", "buffer_sum", "unit_sum", "extra_sums")
    }
    if len(values["half_dots"]) < len(values["clients"]):  # as in one job: all clients have halves, or none
        values |= {n: np.zeros(0) for n in ("half_dots", "half_sq_diffs")}
    return replace(first, **values)
