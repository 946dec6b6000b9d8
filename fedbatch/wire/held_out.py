"""Messages about what clients hold out: scores, sums over all of it, temperatures; as those of `messages`."""

from dataclasses import dataclass, field

from torch import Tensor

from fedbatch.wire.messages import no_counts
from fedbatch.wire.schema import Counts, Ids, IfKept, Numbers, Positive


@dataclass(frozen=True)
class EvaluatePlan:
    """Evaluate the model on the held-out part of these clients: the global one, or with what they keep their own.

    Attributes:
        params, buffers: the global model, (d,) and (m,).
        clients: int64 (K,) ids, ascending.
        at: float64 (m,) constants that the task's sums are taken at.
        phase: gives the client work.
        versions: int64 (K,) of what each client keeps, as in `TrainPlan`.
    """

    params: Tensor
    buffers: Tensor
    clients: Ids
    at: Tensor
    phase: str = ""
    versions: IfKept = field(default_factory=no_counts)


@dataclass(frozen=True)
class Evaluation:
    """Sums over each client's held-out examples.

    Attributes:
        clients: int64 (K,) ids, ascending.
        counts: int64 (K,) examples that each holds out.
        score_sums: float64 (K * S,) the task's sums, client after client.
        loss_sums: float64 (K,).
    """

    clients: Ids
    counts: Counts
    score_sums: Tensor
    loss_sums: Numbers


@dataclass(frozen=True)
class SumsPlan:
    """Ask for sums over what these clients hold out, of which nothing else is told.

    Attributes:
        params, buffers: the global model, (d,) and (m,).
        clients: int64 (K,) ids, ascending.
        temperatures: float64 (K,) > 0, what each client's logits are divided by.
        part: "all" that they hold out, every second example to "fit", or the others to "measure".
        statistic: name of one of `fedbatch.metrics.statistics.STATISTICS`.
        at: float64 (n,), what it is taken at.
    """

    params: Tensor
    buffers: Tensor
    clients: Ids
    temperatures: Positive
    part: str
    statistic: str
    at: Tensor


@dataclass(frozen=True)
class SlopePlan:
    """Ask for the sum of clipped values over what these clients hold out, in a run with differential privacy.

    Attributes:
        params: (d,) global parameters.
        clients: int64 (K,) ids, ascending.
        round: number of rounds done.
        inverse: of the temperature, 1 / T > 0; with round and parameters it names the release.
        clip_norm: largest value of a unit.
        attempt, nonce: as in `PrivatePlan`.
        statistic: "slope" of -ln p in 1 / T; or "correct", 1/2 for what is right and -1/2 for what is wrong.
    """

    params: Tensor
    clients: Ids
    round: int
    inverse: float
    clip_norm: float
    attempt: int = 0
    nonce: str = ""
    statistic: str = "slope"


@dataclass(frozen=True)
class Sums:
    """The answer to a `SumsPlan` or a `SlopePlan`: float64 (n,) sums over all ``clients``, not over each."""

    clients: Ids
    sums: Tensor


@dataclass(frozen=True)
class Temperatures:
    """Each client's own temperature, fitted by itself, float64 (K,): the other answer to a `SumsPlan`."""

    clients: Ids
    temperatures: Positive
