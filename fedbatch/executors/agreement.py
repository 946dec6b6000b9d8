"""Whether an executor gives the loop's numbers, found by running both on a few of the run's own clients.

A fast path rests on what it can see of a model, and a model may do what cannot be seen: use a weight outside its layer,
fold examples into the batch, let them meet. So none is believed; each is compared first.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fedbatch.clients.clip import Clip
from fedbatch.clients.job import Executor, Job
from fedbatch.clients.own import OwnVectors
from fedbatch.executors.loop import loop
from fedbatch.wire.messages import Contribution

CLIENTS, EXAMPLES, STEPS = 3, 256, 3
"""Most clients, examples of a batch and local steps of a comparison."""
SINGLE = 16
"""Clients of a comparison where each has one example: so many may have to be together before they meet."""
SHIFT = 0.01
"""Standard deviation by which parameters are moved for the first comparison."""
LARGE = 2**25
"""Parameters beyond which nothing is compared in float64, whose copies would be more than the round itself needs."""
EXACT = 1e-6
"""Largest relative difference in float64, where agreement is a matter of algebra; of each parameter on its own."""
ROUNDED = {torch.float64: 1e-6, torch.float32: 1e-5}
"""Largest relative difference in the run's own precision, after one gradient; ten times that after local steps, which
carry rounding on; and ten times more for a parameter on its own."""


def sample(job: Job) -> Job:
    """A few clients of ``job`` with its own batches: the first, and those with the fewest and the most examples."""
    if job.draw.counts.shape[1] == 1 and job.draw.counts.max(initial=0) == 1:
        return job.select(slice(0, SINGLE))
    counts = np.where(job.draw.counts > 0, job.draw.counts, np.iinfo(np.int64).max)
    smallest, largest = int(counts.min(axis=1).argmin()), int(job.draw.counts.max(axis=1).argmax())
    rows = np.unique([0, min(1, len(job.clients) - 1), smallest, largest])
    few = job.select(rows[: CLIENTS + 1])
    return replace(few, draw=few.draw.shortened(STEPS, EXAMPLES))


@dataclass(frozen=True)
class Reference:
    """A job, what the loop makes of it, and how far an executor may be from that, as a whole and in one parameter.

    ``kept`` is what the loop lets clients keep, where they do.
    """

    job: Job
    expected: Contribution
    tolerance: float
    tolerance_of_tensor: float
    kept: OwnVectors | None = None


def references(job: Job) -> list[Reference]:
    """What an executor is compared with: ``job`` in float64, where its model can be computed so, and as it is.

    A large model is compared in its own precision alone.

    Of clients whose update is not finite there is nothing to compare; the others stay where there are any.
    """
    contribution = loop(job)
    finite = np.isfinite(contribution.sq_norms) & np.isfinite(contribution.losses)
    if finite.any() and not finite.all():
        job = job.select(finite)
    rounded = _rounded_bfloat16(job) if job.model.is_bfloat16 else ROUNDED[job.params.dtype]
    tolerance = rounded * (10 if job.draw.counts.shape[1] > 1 else 1)
    probes = [(probe, tolerance, 10 * tolerance) for probe in _probes(job)]
    if len(job.params) > LARGE:
        probes = [(probe, tolerance, 10 * tolerance) for probe in _probes(_moved(job))] + probes
    elif (exact := _in_float64(job)) is not None:
        probes = [(probe, EXACT, EXACT) for probe in _probes(exact)] + probes
    found = []
    for probe, whole, each in probes:
        kept = _nothing_kept(probe)
        found.append(Reference(probe, loop(replace(probe, own=kept)), whole, each, kept))
    return found


def _nothing_kept(job: Job) -> OwnVectors | None:
    """A place for what clients keep, beside that of the job; None where they keep nothing."""
    if not job.sizes("own"):
        return None
    zeros = job.params.new_zeros(sum(job.sizes("own").values()))
    return OwnVectors(lambda clients: zeros.expand(len(clients), -1)) if job.own is None else job.own.anew()


def disagreement(executor: Executor, references: Iterable[Reference]) -> str | None:
    """How far an executor is from the loop, in words, or None where they agree; a failure is a disagreement.

    Sum, every client's norm, halves and losses are compared.
    """
    for reference in references:
        job, own = reference.job, _nothing_kept(reference.job)
        try:
            got = executor(replace(job, own=own))
        except Exception as error:
            return in_words(error)
        finally:
            job.model.load(job.params, job.buffers)
        for name, relative in (*_relative(reference, got), *_relative_own(reference, own)):
            if not relative <= reference.tolerance:
                return f"its {name} differs from executor=loop by {100 * relative:.3g} %"
    return None


def in_words(error: Exception) -> str:
    """An executor's failure in one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def _rounded_bfloat16(job: Job) -> float:
    """Twice what 8 bits do to the loop's own sum, for another executor rounds in another order, and four units."""
    rounded = loop(job).update_sum
    job.model.is_bfloat16 = False
    try:
        exact = loop(job).update_sum
    finally:
        job.model.is_bfloat16 = True
    unit = torch.finfo(torch.bfloat16).eps
    return 2 * float((rounded - exact).norm()) / max(float(exact.norm()), TINY) + 4 * unit


def _probes(job: Job) -> Iterator[Job]:
    """The job; under clipping once where nothing is clipped, which shows the norms, and once where everything is."""
    if job.clip is None:
        yield job
        return
    for norm in (math.inf, 1e-3):
        yield replace(job, clip=Clip(norm, job.clip.per_layer))


def _in_float64(job: Job) -> Job | None:
    if job.params.dtype == torch.float64:
        return None
    try:
        model = job.model.double()
        x = job.x.double() if job.x.is_floating_point() else job.x
        exact = _moved(replace(job, model=model, x=x, params=job.params.double(), buffers=job.buffers.double()))
        loop(exact)
    except Exception:  # a module that cannot be copied, or that computes in a precision of its own
        return None
    return exact


def _moved(job: Job) -> Job:
    """Not at the start itself: a layer that starts at zero hides what lies behind it."""
    noise = torch.randn(len(job.params), dtype=job.params.dtype, generator=torch.Generator().manual_seed(0))
    return replace(job, params=noise.to(job.params.device).mul_(SHIFT).add_(job.params))


def _relative(reference: Reference, got: Contribution) -> Iterator[tuple[str, float]]:
    """Names and largest relative differences of all that is compared."""
    job, expected = reference.job, reference.expected
    finite = np.isfinite(expected.sq_norms) & np.isfinite(expected.losses)
    if not np.array_equal(finite, np.isfinite(got.sq_norms) & np.isfinite(got.losses)):
        yield "set of clients with finite updates", math.inf
    for field in ("sq_norms", "losses", "half_dots", "half_sq_diffs"):
        a, b = getattr(expected, field), getattr(got, field)
        if len(a) != len(b):
            yield NAMES[field], math.inf
        elif field == "sq_norms":
            a, b = np.sqrt(a[finite]), np.sqrt(b[finite])
            yield NAMES[field], _largest(np.abs(a - b), a)
        elif len(a):
            scale = np.maximum(np.abs(a), expected.sq_norms if field.startswith("half") else 0.0)
            yield NAMES[field], _largest(np.abs(a - b)[finite], scale[finite])
    if not finite.all():
        return
    lengths = np.sqrt(expected.sq_norms)
    sums = [("update_sum", float(job.weights @ lengths))] + [("unit_sum", float(len(lengths)))] * job.cosine
    for field, scale in sums:
        a, b = getattr(expected, field), getattr(got, field)
        yield NAMES[field], float((a - b).norm()) / max(float(a.norm()), FLOOR * scale, TINY)
        by_tensor = _by_tensor(job, a, b, scale)
        yield f"{NAMES[field]} in one parameter", by_tensor * reference.tolerance / reference.tolerance_of_tensor

    if (extras := expected.extra_sums).numel():
        yield NAMES["extra_sums"], float((extras - got.extra_sums).norm()) / max(float(extras.norm()), TINY)


def _relative_own(reference: Reference, own: OwnVectors | None) -> Iterator[tuple[str, float]]:
    """Name and largest relative difference of what clients keep."""
    if own is None or reference.kept is None:
        return
    if own.after.keys() != reference.kept.after.keys():
        yield "set of clients that keep vectors", math.inf
        return
    expected, got = (each.stacked(reference.job.clients) for each in (reference.kept, own))
    finite = expected.isfinite().all(dim=1)
    expected, got = expected[finite], got[finite]
    yield "vectors that clients keep", float((expected - got).norm()) / max(float(expected.norm()), TINY)


NAMES = {
    "sq_norms": "norm of a client's update",
    "losses": "loss",
    "half_dots": "product of halves",
    "half_sq_diffs": "difference of halves",
    "update_sum": "sum of updates",
    "unit_sum": "sum of unit updates",
    "extra_sums": "sum of what is sent besides",
}
TINY = 1e-300  # nothing over nothing is no difference
FLOOR = 1e-3
"""A tensor whose sum is a smaller share than this of the whole is compared with this share: its own may be noise."""


def _by_tensor(job: Job, expected: Tensor, got: Tensor, scale: float) -> float:
    """Largest difference in one parameter tensor, relative to its own length or to a share of the whole."""
    pairs: Iterator[tuple[Tensor, Tensor]] = zip(job.model.split(expected), job.model.split(got), strict=True)
    worst = [(float((a - b).norm()), float(a.norm())) for a, b in pairs]
    return max((d / max(own, FLOOR * scale, TINY) for d, own in worst), default=0.0)


def _largest(difference: np.ndarray, scale: np.ndarray) -> float:
    whole = float(scale.max(initial=0.0))
    limit = np.maximum(scale, FLOOR * whole)
    return float(np.divide(difference, limit, out=np.zeros_like(difference), where=difference > 0).max(initial=0.0))
