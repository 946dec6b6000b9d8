"""Exponential moving average of the parameters."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EMA:
    """The average moves towards the parameters by ``1 - decay^k`` a round, k its batch over the first phase's.

    With k times the batch a round counts as k rounds, so that the average looks back over as many examples whatever
    the batch (Busbridge et al. 2023, "How to scale your EMA"). In the first rounds it is the plain mean, so that the
    initial parameters do not stay in it.

    Attributes:
        decay: in [0, 1), for a round of the first phase; about ``1 / (1 - decay)`` rounds count.

    >>> [EMA(0.75).weight(round_, 1.0) for round_ in (0, 1, 9)]
    [1.0, 0.5, 0.25]
    """

    decay: float = 0.99

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"averaging.decay must be in [0, 1) (got {self.decay})")

    def weight(self, round_: int, batches: float) -> float:
        """Weight of the parameters after ``round_``, from 0, in the average, which had all others before.

        Args:
            round_: index of the round.
            batches: global batch of the round over that of the first phase, > 0.
        """
        return float(max(1 - self.decay**batches, 1 / (round_ + 1)))
