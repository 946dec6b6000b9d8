"""Bounding a node whose updates are far longer than everybody else's: one node must not own the step.

Of three nodes or more, the longest update of a node is compared with the median of the others' longest, R. A node may
have 10 R; one that always had longer updates, H on average, may have 10 H, but never more than 100 R. One beyond that
is scaled down as a whole, to R, so that it has no more say than others. Heavy tails and unequal batches of honest nodes
stay within a factor of ten, so that nothing changes for them.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fedbatch.wire.messages import Contribution, Updates

FACTOR = 10.0
KEEP = 0.9
"""Weight of the past in a node's own average."""

Lengths = Mapping[int, float]


def limits(now: Lengths, before: Lengths) -> dict[int, float]:
    """The length to which each node's updates are scaled down; infinite where they stay as they are.

    With fewer than two others there is nothing to compare with.

    Args:
        now: longest update of each node that answered.
        before: average of the longest updates of nodes in earlier rounds, of all that ever answered.

    >>> limits({1: 1.0, 2: 2.0, 3: 1e30}, {})
    {1: inf, 2: inf, 3: 1.5}
    """
    known = {**before, **now}
    found = {}
    for node in now:
        others = [now[other] for other in now if other != node]
        if len(others) < 2:
            others = [known[other] for other in known if other != node]
        middle = float(np.median(others)) if len(others) > 1 else 0.0
        own = min(before.get(node, 0.0), FACTOR * middle)
        most = FACTOR * max(middle, own)
        found[node] = middle if 0 < most < now[node] else float("inf")
    return found


def averaged(now: Lengths, before: Lengths) -> dict[int, float]:
    """The averages after one more round, geometric ones; ``now`` is bounded."""
    fresh = {
        node: before[node] ** KEEP * length ** (1 - KEEP) if before.get(node) else length
        for node, length in now.items()
    }
    return {**before, **fresh}


def longest(answer: Contribution | Updates) -> float:
    """Length of the longest update of a node, 0 without any."""
    if not len(answer.clients):
        return 0.0
    if isinstance(answer, Updates):
        return float(answer.updates.double().view(len(answer.clients), -1).norm(dim=1).max())
    return float(np.sqrt(max(answer.sq_norms.max(), answer.sent_sq_norms.max(initial=0.0))))


def bounded(answer: Contribution | Updates, limit: float) -> Contribution | Updates:
    """The answer with no update longer than ``limit``: single ones cut, sums scaled down as a whole."""
    if isinstance(answer, Updates):
        rows = answer.updates.view(len(answer.clients), -1)
        scale = (limit / rows.double().norm(dim=1).clamp(min=limit)).to(rows.dtype)
        return replace(answer, updates=(rows * scale.unsqueeze(1)).flatten())
    scale = limit / longest(answer)
    return replace(
        answer,
        update_sum=(answer.update_sum.double() * scale).to(answer.update_sum.dtype),
        extra_sums=(answer.extra_sums.double() * scale).to(answer.extra_sums.dtype),
        sq_norms=answer.sq_norms * scale**2,
        half_dots=answer.half_dots * scale**2,
        half_sq_diffs=answer.half_sq_diffs * scale**2,
        sq_errors=answer.sq_errors * scale**2,
        sent_sq_norms=answer.sent_sq_norms * scale**2,
    )
