"""Polynomial-decay average of the parameters."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Polynomial:
    """The parameters after round t weigh about ``t^power`` (Shamir and Zhang 2013, section 4).

    It forgets the beginning at any length of the run, so that it has no decay to be tuned: the last
    ``1 / (power + 1)`` of the rounds count for most.

    Attributes:
        power: >= 0; 0 is the plain mean.

    >>> [Polynomial(0.0).weight(round_, 1.0) for round_ in (0, 1, 3)]
    [1.0, 0.5, 0.25]
    """

    power: float = 3.0

    def __post_init__(self) -> None:
        if not self.power >= 0:
            raise ValueError(f"averaging.power must be >= 0 (got {self.power})")

    def weight(self, round_: int, batches: float) -> float:
        """Weight of the parameters after ``round_``, from 0, in the average; ``batches`` does not matter."""
        return (self.power + 1) / (round_ + 1 + self.power)
