"""The messages between server and node, one frozen dataclass each; `fedbatch.wire.codec` carries and validates them."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fedbatch.wire.schema import (
    Bytes,
    Counts,
    Ids,
    IfCompressed,
    IfHalved,
    IfKept,
    IfWeighted,
    Listed,
    Numbers,
    Positive,
    Squares,
    Vector,
)


def no_numbers() -> Tensor:
    """A vector of no numbers."""
    return torch.zeros(0)


def no_counts() -> Vector:
    """A column without entries."""
    return np.zeros(0, np.int64)


def no_bytes() -> Vector:
    """No bytes."""
    return np.zeros(0, np.uint8)


def no_squares() -> Vector:
    """A column of squared lengths without entries."""
    return np.zeros(0)


@dataclass(frozen=True)
class Hosted:
    """A node's answer to ``query``: the clients it hosts.

    Attributes:
        clients: int64 (K,) ids, distinct.
        num_examples: int64 (K,) training examples of each.
        frozen: digest of what its model holds and nobody sends; see `fedbatch.models.frozen`.
        meaning: of its own data, where it has some; see `fedbatch.data.meaning`.
    """

    clients: Ids
    num_examples: Counts
    frozen: str = ""
    meaning: str = ""


@dataclass(frozen=True)
class TrainPlan:
    """What the server asks of one node in one round.

    Attributes:
        params: (d,) global parameters.
        buffers: (m,) global floating-point buffers.
        clients: int64 (K,) ids of the clients to work for, ascending.
        batch_sizes: int64 (K,) ``b_k``.
        round: index of the round, from 0.
        phase: name of the phase, which fixes the client work.
        halves: whether to split batches in halves, for the drift estimate.
        cosine: whether to send the sum of unit updates, for the mean pairwise cosine.
        executor: how to run the clients; "auto" measures and answers what it took.
        single: whether to answer with `Updates`, every client's own, and not with a `Contribution`.
        extras: numbers that the client work sends besides each update.
        shared: (s,) the server's vectors for the client work, one after the other.
        versions: int64 (K,) of each client, one more than the last round of which the server took its contribution, and
            0 if there is none: what the client keeps is as it was after that round. (0,) where clients keep nothing.
        checkpoints: int64 (n,) rounds done in the checkpoints from which the run may be resumed.
        payload: bytes in which each client sends its update compressed; 0 where updates are added up.
        factors: float64 (K,) on the weights of the updates, where the sampler makes up for its chances; else (0,).
    """

    params: Tensor
    buffers: Tensor
    clients: Ids
    batch_sizes: Counts
    round: int
    phase: str
    halves: bool
    cosine: bool
    executor: str
    single: bool = False
    extras: int = 0
    shared: Tensor = field(default_factory=no_numbers)
    versions: IfKept = field(default_factory=no_counts)
    checkpoints: Listed = field(default_factory=no_counts)
    payload: int = 0
    factors: IfWeighted = field(default_factory=no_squares)


@dataclass(frozen=True)
class Contribution:
    """What a node answers: the weighted sum of its clients' updates and one row of scalars for each client.

    Attributes:
        update_sum: (d,) ``sum_k w_k u_k``; (0,) on its way from a node where updates are compressed.
        buffer_sum: (m,) ``sum_k w_k buffers_k``.
        unit_sum: (d,) ``sum_k u_k / |u_k|``, or (0,) when not asked for.
        clients: int64 (K,) ids, ascending.
        weights: float64 (K,) ``w_k > 0``.
        num_examples: int64 (K,) examples processed.
        sq_norms: float64 (K,) ``|u_k|^2``.
        losses: float64 (K,) mean training loss seen by the client.
        half_dots: float64 (K,) inner product of the gradients of the two halves of the batch, or (0,).
        half_sq_diffs: float64 (K,) ``|h_1 - h_2|^2 / (1/b_1 + 1/b_2)``, which estimates tr Sigma, or (0,).
        excluded: int64 (E,) clients left out because their update was not finite.
        executor: what ran the clients.
        round: index of the round that this answers.
        extra_sums: (e,) weighted sums of what the client work sends besides the update, one after the other.
        lost: clients who did not have what they had kept, and began with zeros.
        payload: uint8 (K * n,) compressed updates, one after the other in the order of ``clients``, or (0,).
        sq_errors: float64 (K,) ``|decoded - encoded|^2`` of each, or (0,) where nothing is compressed.
        sent_sq_norms: float64 (K,) ``|decoded|^2`` of each, or (0,).
    """

    update_sum: Tensor
    buffer_sum: Tensor
    unit_sum: Tensor
    clients: Ids
    weights: Positive
    num_examples: Counts
    sq_norms: Squares
    losses: Numbers
    half_dots: IfHalved
    half_sq_diffs: IfHalved
    excluded: Listed
    executor: str = ""
    round: int = 0
    extra_sums: Tensor = field(default_factory=no_numbers)
    lost: int = 0
    payload: Bytes = field(default_factory=no_bytes)
    sq_errors: IfCompressed = field(default_factory=no_squares)
    sent_sq_norms: IfCompressed = field(default_factory=no_squares)


@dataclass(frozen=True)
class Updates:
    """Every client's own update, for aggregation that looks at single ones; K times the size of a sum.

    Attributes:
        updates: (K * d,) updates, one after the other in the order of ``clients``.
        clients, num_examples, losses, excluded, executor, round, lost: as in `Contribution`.
    """

    updates: Tensor
    clients: Ids
    num_examples: Counts
    losses: Numbers
    excluded: Listed
    executor: str
    round: int
    lost: int = 0


@dataclass(frozen=True)
class PrivatePlan:
    """What the server asks of one node in one round of a run with differential privacy.

    Attributes:
        params: (d,) global parameters.
        clients: int64 (K,) ids of the clients to work for, ascending.
        round: index of the round, from 0.
        phase: name of the phase, which fixes work, sample rate and noise.
        cohort_size: of the phase, where its controller moves it.
        clip_norm: C of this round.
        executor: as in `TrainPlan`.
        attempt: how often the round was done before with something else coming out.
        nonce: of the run.
    """

    params: Tensor
    clients: Ids
    round: int
    phase: str
    cohort_size: int
    clip_norm: float
    executor: str
    attempt: int = 0
    nonce: str = ""


@dataclass(frozen=True)
class PrivateContribution:
    """The answer to a `PrivatePlan`. It has no place for norms, losses or realised counts of anybody.

    Attributes:
        update_sum: (d,) sum of clipped contributions, with noise unless the server adds it; whole numbers in float64,
            as the extra sums are then, where the noise is of integers.
        extra_sums: (e,) further sums of the same release: of squared lengths, of units within the clip norm.
        clients: int64 (K,) the clients asked for.
        executor: what ran them.
        round: index of the round that this answers.
    """

    update_sum: Tensor
    extra_sums: Tensor
    clients: Ids
    executor: str
    round: int
