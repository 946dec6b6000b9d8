"""Client work as three pure functions on flat vectors, and the names of all that it sends and keeps besides an update.

The same functions serve one client, whose vectors are (d,), and many side by side, whose vectors are (K, d): they may
use only operations that act on the last axis or on single numbers. Executors call them; they never see a model.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

Vectors = dict[str, Tensor]
Length = int | str
"""Of a named vector: a number; or "params", "buffers": as many as the model has."""
Lengths = Mapping[str, Length]


class Moment(NamedTuple):
    """When a step is taken.

    Attributes:
        round: index of the round, from 0.
        step: index of the client's own steps in this round, from 0.
        steps: how many the client takes in this round, (1,), or (K, 1) for many.
    """

    round: int
    step: int
    steps: Tensor


class Finished(NamedTuple):
    """What a client makes of a round.

    Attributes:
        update: (d,), a pseudo-gradient: start minus end of local steps.
        extras: the named vectors that are weighted and added up as updates are.
        own: the named vectors that the client keeps until it is asked again.
    """

    update: Tensor
    extras: Vectors
    own: Vectors


class LocalWork(Protocol):
    """Client work that takes local steps. In all functions ``params`` (d,) or (K, d) are the global parameters.

    Four more functions are called where they are there. ``on_model(model)`` gives the work for a `FlatModel`.
    ``own_params(params, own)`` gives the parameters that clients use themselves, by which they are then evaluated.
    ``own_buffers(buffers, own)`` gives the buffers (m,) with which one client begins; those with which it ends are then
    its own vector "buffers", and are not sent. ``longest(updates, weight, steps, shared)`` gives by name how long the
    weighted sums of extras of some clients can be, from the weighted sums of their updates' lengths, of 1, and of the
    most steps that they can take; longer ones are not true.

    Attributes:
        extras: names and lengths of the vectors that a client sends besides its update; none where missing.
        own: the same of the vectors that a client keeps. They are zeros before its first round.
        shared: the same of the vectors that the server sends to all. They are zeros before the first round.
    """

    extras: Lengths
    own: Lengths
    shared: Lengths

    def start(self, params: Tensor, shared: Vectors, own: Vectors) -> tuple[Tensor, Vectors]:
        """The first point, and the carry: named vectors (n,) or (K, n) that go from step to step."""
        ...

    def step(
        self, params: Tensor, point: Tensor, gradient: Tensor, carry: Vectors, now: Moment
    ) -> tuple[Tensor, Vectors]:
        """The next point and carry, from the gradient at ``point``; only clients that have a batch are there."""
        ...

    def finish(self, params: Tensor, point: Tensor, carry: Vectors, steps: Tensor) -> Finished:
        """What the clients send and keep, after ``steps`` (1,) or (K, 1) steps each."""
        ...

    def aggregate(self, update: Tensor, extras: Vectors, shared: Vectors, share: float) -> tuple[Tensor, Vectors]:
        """What the server makes of a round; needed only with ``extras`` or ``shared``.

        Args:
            update: (d,) weighted mean update of the cohort.
            extras: weighted means of what clients sent besides.
            shared: the server's vectors.
            share: weight of the cohort over that of all clients, in (0, 1].

        Returns:
            The update (d,) for the server optimizer, and the server's new vectors.
        """
        ...


def takes_steps(work: Any) -> bool:
    """Whether client work is given by the three functions, and not by an ``update`` of its own."""
    return not hasattr(work, "update") and all(hasattr(work, name) for name in ("start", "step", "finish"))


def lengths(work: Any, kind: str, params: Tensor, buffers: Tensor) -> dict[str, int]:
    """Names and lengths of what ``work`` declares as "extras", "own" or "shared", for a model."""
    sizes = {"params": len(params), "buffers": len(buffers)}
    return {name: sizes[n] if isinstance(n, str) else n for name, n in getattr(work, kind, {}).items()}


def split(flat: Tensor, sizes: Mapping[str, int]) -> Vectors:
    """The named vectors (..., n) that lie one after the other in ``flat`` (..., sum of n)."""
    return dict(zip(sizes, flat.split(list(sizes.values()), dim=-1), strict=True)) if sizes else {}


def joined(vectors: Vectors, names: Iterable[str], like: Tensor) -> Tensor:
    """The vectors (..., n) one after the other; (..., 0), with the leading axes of ``like``, where there are none.

    Raises:
        KeyError: one of the names is missing.
    """
    parts = [vectors[name] for name in names]
    return torch.cat(parts, dim=-1) if parts else like[..., :0]


def is_finite(done: Finished) -> Tensor:
    """Whether all that is sent besides and kept is finite: (), or (K,) for many."""
    each = [vector.isfinite().all(dim=-1) for vector in (*done.extras.values(), *done.own.values())]
    return torch.stack(each).all(dim=0) if each else torch.ones((), dtype=torch.bool, device=done.update.device)


def protected(work: Any) -> frozenset[str]:
    """The privacy units under which ``work`` may run: "example", "client".

    Only plain SGD is clipped example by example. A client can be protected where all that it sends is one clipped
    update, and where nobody remembers who took part: so not with extras, vectors of its own, or the server's. Work may
    declare ``privacy_units`` of its own, such as none.
    """
    more = any(getattr(work, kind, {}) for kind in ("extras", "own", "shared"))
    may = {"example": getattr(work, "is_plain_sgd", False), "client": not more}
    return frozenset(unit for unit in getattr(work, "privacy_units", may) if may[unit])
