"""Which executor runs a job: the one asked for, or with ``auto`` the fastest on a few of its clients."""

import hashlib
import logging
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch

import fedbatch
from fedbatch import cache
from fedbatch.clients import fused, ghost, vmap
from fedbatch.clients.job import ClientWork, Executor, Job
from fedbatch.clients.loop import loop
from fedbatch.clients.memory import within_memory
from fedbatch.messages import Contribution
from fedbatch.models.flat import FlatModel, Loss

log = logging.getLogger("fedbatch")

EXECUTORS: dict[str, Executor] = {"fused": fused.fused, "ghost": ghost.ghost, "loop": loop, "vmap": vmap.stacked}
SAMPLE_EXAMPLES, SAMPLE_CLIENTS, REPEATS = 256, 32, 3

Unsupported = Callable[[ClientWork, Loss, FlatModel, tuple[int, ...]], str | None]
_UNSUPPORTED: dict[str, Unsupported] = {
    "fused": fused.unsupported,
    "ghost": ghost.unsupported,
    "vmap": vmap.unsupported,
}


def unsupported(name: str, work: ClientWork, loss: Loss, model: FlatModel, shape: tuple[int, ...]) -> str | None:
    """Why executor ``name`` cannot run this work with inputs of ``shape``, or None if it can. The loop always can."""
    check = _UNSUPPORTED.get(name)
    return check(work, loss, model, shape) if check else None


def execute(job: Job, executor: str) -> Contribution:
    """The contribution of the job's clients; those whose update is not finite are excluded and named."""
    name = chosen(job) if executor == "auto" else executor
    contribution = replace(within_memory(EXECUTORS[name], job), executor=name)
    finite = np.isfinite(contribution.sq_norms) & np.isfinite(contribution.losses)
    if finite.all():
        return contribution
    # Rare, so plain: a sum that holds one bad update is lost, and the good clients are computed once more.
    kept = replace(job, clients=job.clients[finite], draw=job.draw.select(finite), weights=job.weights[finite])
    again = EXECUTORS[name if finite.any() else "loop"]  # the loop takes a job of no clients
    return replace(within_memory(again, kept), excluded=job.clients[~finite], executor=name)


def chosen(job: Job) -> str:
    """The executor for jobs like this one: the fastest, measured once on this machine and remembered.

    Remembered, because executors differ in rounding: the clock must not make two runs of one config differ.
    """
    path = cache.folder() / f"executor-{_fingerprint(job)}"
    if path.is_file() and (name := path.read_text()) in EXECUTORS:
        tell_once(name)
        return name
    name = fastest(job)
    cache.write(path, name.encode())
    return name


@lru_cache(maxsize=8)
def tell_once(name: str) -> None:
    """Not for each of many nodes in one process."""
    log.info("executor=auto takes %s, as measured before on this machine", name)


def fastest(job: Job) -> str:
    """The fastest executor on the job's first few clients; tells why."""
    count = min(SAMPLE_CLIENTS, max(2, SAMPLE_EXAMPLES // max(1, int(job.draw.num_examples.max(initial=1)))))
    few = slice(0, count)
    sample = replace(job, clients=job.clients[few], draw=job.draw.select(few), weights=job.weights[few])
    seconds: dict[str, float] = {}
    reasons = []
    for name, execute in EXECUTORS.items():
        if reason := unsupported(name, job.work, job.loss, job.model, tuple(job.x.shape[1:])):
            reasons.append(f"{name} cannot: {reason}")
            continue
        seconds[name] = min(_time(execute, sample) for _ in range(REPEATS))
        reasons.append(f"{name} {1e3 * seconds[name] / len(sample.clients):.3g} ms a client")
    best = min(seconds, key=lambda name: seconds[name])
    log.info("executor=auto takes %s (%s)", best, "; ".join(reasons))
    return best


def _fingerprint(job: Job) -> str:
    """Hash of all that the speed of a job depends on."""
    size = min(len(job.clients), SAMPLE_CLIENTS)
    parts = [job.model.module, type(job.loss), job.work, job.x.shape[1:], job.params.dtype, job.params.device]
    parts += [size, job.draw.positions.shape[1:], job.halves, job.cosine, job.clip is None, job.model.channels_last]
    parts += [torch.get_num_threads(), torch.__version__, fedbatch.__version__, platform.node()]
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def _time(execute: Executor, job: Job) -> float:
    start = time.perf_counter()
    execute(job)
    return time.perf_counter() - start
