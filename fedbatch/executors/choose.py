"""Which executor runs a job: the one asked for, or with ``auto`` the fastest. None runs before it is compared."""

import hashlib
import inspect
import logging
import platform
import time
import warnings
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

import fedbatch
from fedbatch.clients.job import Executor, Job
from fedbatch.core import cache
from fedbatch.core.errors import RunFailedError
from fedbatch.executors import agreement, chain, fused, ghost, vmap
from fedbatch.executors.loop import loop
from fedbatch.executors.memory import Memory
from fedbatch.executors.pool_first import reordered
from fedbatch.wire.messages import Contribution

log = logging.getLogger("fedbatch")

EXECUTORS: dict[str, Executor] = {
    "chain": chain.chain,
    "fused": fused.fused,
    "ghost": ghost.ghost,
    "loop": loop,
    "vmap": vmap.best,
}
FORMS: dict[str, Callable[[Job], list[list[Executor]]]] = {"vmap": vmap.forms}
"""An executor's forms for a job, the fastest first, with which it falls back where one is wrong for a model. Each comes
with those it goes over to by itself, which must be right, too."""
SAMPLE_EXAMPLES, SAMPLE_CLIENTS, REPEATS, BUDGET_SECONDS = 256, 32, 3, 0.3

UNSUPPORTED: dict[str, Callable[[Job], str | None]] = {
    "chain": chain.unsupported,
    "fused": fused.unsupported,
    "ghost": ghost.unsupported,
    "vmap": vmap.unsupported,
}

SINGLE_UPDATES = ("loop", "vmap")
"""Executors that have every client's own update before they add them up."""


class Executors:
    """The executors of one node's model and loss, each compared with the loop before its first use.

    What was found is kept for jobs of the same kind: the same work, clipping and measurements, and batches of about the
    same size. A new process, and so a resumed run, compares anew.
    """

    def __init__(self) -> None:
        self._found: dict[Hashable, dict[str, Executor | str]] = {}
        self._references: tuple[Hashable, list[agreement.Reference]] = ((), [])
        self._memory = Memory()

    def execute(
        self, job: Job, name: str, witness: Callable[[], Job] | None = None, automatic: bool = False
    ) -> Contribution:
        """The contribution of the job's clients; those whose update is not finite are excluded and named.

        Args:
            job: the job.
            name: an executor, or "auto".
            witness: makes the job on which executors are compared; None takes clients of ``job``.
            automatic: whether another executor may take over where the named one turns out wrong.

        Raises:
            RunFailedError: the named executor is wrong for this job.
        """
        witness = witness or (lambda: job)
        if not len(job.clients):
            return replace(loop(job), executor="loop" if name == "auto" else name)
        automatic |= name == "auto"
        form = name if name == "auto" else self._form(name, job, witness)
        if isinstance(form, str) and automatic:
            name = self.chosen(job, witness)
            form = self._form(name, job, witness)
        if isinstance(form, str):
            raise RunFailedError(f"executor={name} cannot run this: {form}; use executor=auto")
        self._references = ((), [])  # with a copy of the model
        try:
            contribution = self._memory.run(form, job, (form, _kind(job)))
        except Exception as error:
            if not automatic or name == "loop":
                raise
            self._rule_out(name, job, agreement.in_words(error))
            return self.execute(job, "auto", witness)
        return self._without_failed(job, form, replace(contribution, executor=name))

    def chosen(self, job: Job, witness: Callable[[], Job], is_told: bool = True) -> str:
        """The executor for jobs like this one: the fastest that is right, measured once on this machine.

        Remembered, because executors differ in rounding: the clock must not make two runs of one config differ. It is
        logged if ``is_told``; not where even being asked for anything is a secret.
        """
        path = cache.folder() / f"executor-{fingerprint(job)}"
        name = path.read_text() if path.is_file() else ""
        if name in EXECUTORS and self.unusable(name, job, witness) is None:
            if is_told:
                tell_once(f"executor=auto takes {name}, as measured before on this machine{_reordering(name, job)}")
            return name
        with warnings.catch_warnings(action="ignore"):  # torch's, of executors that are only tried
            name, reasons = self.fastest(job, witness)
        if is_told:
            tell_once(f"executor=auto takes {name} ({'; '.join(reasons)}){_reordering(name, job)}")
        cache.write(path, name.encode())
        return name

    def fastest(self, job: Job, witness: Callable[[], Job]) -> tuple[str, list[str]]:
        """The fastest right executor on the job's first few clients, and what was found of each."""
        count = min(SAMPLE_CLIENTS, max(2, SAMPLE_EXAMPLES // max(1, int(job.draw.num_examples.max(initial=1)))))
        few = job.select(slice(0, count))
        seconds: dict[str, float] = {}
        reasons = []
        for name in EXECUTORS:
            form = self._form(name, job, witness)
            if not isinstance(form, str):
                try:
                    seconds[name] = _least_seconds(form, few)
                    reasons.append(f"{name} {1e3 * seconds[name] / len(few.clients):.3g} ms a client")
                    continue
                except Exception as error:
                    if name == "loop":
                        raise
                    form = agreement.in_words(error)
                    self._rule_out(name, job, form)
            reasons.append(f"{name} cannot: {form}")
        return min(seconds, key=lambda name: seconds[name]), reasons

    def unusable(self, name: str, job: Job, witness: Callable[[], Job] | None = None) -> str | None:
        """Why an executor may not run jobs like this one, or None."""
        form = self._form(name, job, witness or (lambda: job))
        return form if isinstance(form, str) else None

    def _form(self, name: str, job: Job, witness: Callable[[], Job]) -> Executor | str:
        """The form of an executor that is right for jobs like this one, or why there is none."""
        if name == "loop":
            return EXECUTORS["loop"]
        found = self._found.setdefault(_kind(job), {})
        if name not in found:
            found[name] = self._compared(name, job, witness)
        return found[name]

    def _compared(self, name: str, job: Job, witness: Callable[[], Job]) -> Executor | str:
        if job.outbox is not None and name not in SINGLE_UPDATES:
            return "compression needs single updates, which it never has"
        try:
            if name in UNSUPPORTED and (reason := UNSUPPORTED[name](job)):
                return reason
        except Exception as error:  # a forward with hooks on it is another one for some models
            return agreement.in_words(error)
        try:
            if self._references[0] != _kind(job):
                self._references = (_kind(job), agreement.references(agreement.sample(witness())))
            found = ""
            for form, *others in FORMS[name](job) if name in FORMS else [[EXECUTORS[name]]]:
                compared = (agreement.disagreement(each, self._references[1]) for each in (form, *others))
                if (reason := next(filter(None, compared), None)) is None:
                    return form
                found = reason
            return found
        finally:
            job.model.load(job.params, job.buffers)

    def _rule_out(self, name: str, job: Job, reason: str) -> None:
        log.warning("executor %s is not used any more: %s", name, reason)
        self._found[_kind(job)][name] = reason

    def _without_failed(self, job: Job, form: Executor, contribution: Contribution) -> Contribution:
        finite = np.isfinite(contribution.sq_norms) & np.isfinite(contribution.losses)
        if finite.all():
            return contribution
        # Rare, so plain: a sum that holds one bad update is lost, and the good clients are computed once more.
        again = form if finite.any() else loop  # the loop takes a job of no clients
        kept = self._memory.run(again, job.select(finite), (again, _kind(job)))
        return replace(kept, excluded=job.clients[~finite], executor=contribution.executor)


@lru_cache(maxsize=64)
def tell_once(text: str) -> None:
    """Not for each of many nodes in one process."""
    log.info("%s", text)


def _reordering(name: str, job: Job) -> str:
    """What an executor does in another order than the model, with the same result, in words."""
    swaps = name in ("fused", "vmap") and reordered(job.model.module)
    return "; it pools before the activation, which gives the same numbers" if swaps else ""


def fingerprint(job: Job) -> str:
    """Hash of all that the choice depends on: model, loss and their code, work, shapes, machine and versions."""
    parts: list[Any] = [*_model_parts(job), *_own_parts(job.loss), job.work, job.x.shape[1:], job.x.dtype]
    parts += [min(len(job.clients), SAMPLE_CLIENTS), job.draw.positions.shape[1:], *_kind(job)]
    parts += [job.params.dtype, job.params.device, job.model.channels_last, torch.get_num_threads()]
    if job.model.is_bfloat16:
        parts.append("bfloat16")
    if job.params.is_cuda:
        parts.append(torch.cuda.get_device_name(job.params.device))
    parts += [torch.__version__, np.__version__, fedbatch.__version__, platform.python_version(), platform.node()]
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def _model_parts(job: Job) -> Iterator[Any]:
    module = job.model.module
    yield repr(module)
    yield from job.model.changing
    yield job.model.is_random
    owners: dict[int, str] = {}  # a shared parameter is named by its first place
    for name, p in module.named_parameters(remove_duplicate=False):
        yield name, owners.setdefault(id(p), name), tuple(p.shape), p.requires_grad
    for kind in sorted({type(m) for m in module.modules()}, key=lambda kind: kind.__qualname__):
        yield from _source(kind)


def _own_parts(loss: Any) -> Iterator[Any]:
    yield from _source(type(loss))
    yield sorted((name, repr(value)) for name, value in getattr(loss, "__dict__", {}).items())


def _source(kind: type) -> Iterator[str]:
    yield f"{kind.__module__}.{kind.__qualname__}"
    if kind.__module__.split(".")[0] not in ("torch", "fedbatch", "builtins"):  # those have versions
        try:
            yield inspect.getsource(kind)
        except (OSError, TypeError):  # defined on a command line: compared anew in every process all the same
            yield ""


def _kind(job: Job) -> tuple[Hashable, ...]:
    """What jobs have in common for which an executor is right or wrong."""
    clip = None if job.clip is None else job.clip.per_layer
    size = int(job.draw.counts.max(initial=0)).bit_length()
    compressed = () if job.outbox is None else ("compressed",)
    return repr(job.work), job.halves, job.cosine, clip, size, job.draw.counts.shape[1] > 1, *compressed


def _least_seconds(form: Executor, job: Job) -> float:
    """Of a few repetitions, and of one where that takes long: what is slow needs no fine clock."""
    best, spent = float("inf"), 0.0
    for _ in range(REPEATS):
        seconds = _time(form, job)
        best, spent = min(best, seconds), spent + seconds
        if spent > BUDGET_SECONDS:
            break
    return best


def _time(execute: Executor, job: Job) -> float:
    start = time.perf_counter()
    execute(job)
    return time.perf_counter() - start
