"""Columns of the record that say how calibrated predictions are, from the sums of a pool of them.

A pool is the test split, or all that clients hold out: what it is asked for adds up, so both come out of the same code.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fedbatch.metrics.bins import BinSums, mass_edges, width_edges
from fedbatch.metrics.bootstrap import spread
from fedbatch.metrics.statistics import STATISTICS


class Pool(Protocol):
    """Predictions that answer with sums over all of them."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        ...

    def sums(self, statistic: str, at: Tensor) -> Tensor:
        """The sums of one of `STATISTICS`, float64 on the CPU."""
        ...


@dataclass(frozen=True)
class Predicted:
    """A pool in one place: float64 logits (n, classes) and labels (n,), on any device."""

    logits: Tensor
    labels: Tensor

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.logits.shape[1]

    def sums(self, statistic: str, at: Tensor) -> Tensor:
        """The sums of one of `STATISTICS`."""
        return STATISTICS[statistic](self.logits, self.labels, at.to(self.logits.device)).cpu()


@dataclass(frozen=True)
class Calibration:
    """What ``metrics=calibration`` puts into the record.

    Attributes:
        bins: number of bins of the calibration errors, at least 1.
        replicates: of the bootstrap, at least 2.
    """

    bins: int = 15
    replicates: int = 200

    def __post_init__(self) -> None:
        if self.bins < 1 or self.replicates < 2:
            raise ValueError(
                f"metrics: bins must be at least 1 and replicates at least 2 (got {self.bins} and {self.replicates})"
            )

    def columns(self, pool: Pool) -> dict[str, float]:
        """Scores of a pool.

        Returns:
            ``examples``, ``accuracy``, ``nll`` (nats), ``brier``; ``ece`` (equal width, l1) and ``ece_se``, its
            bootstrap spread; ``ece_mass`` (equal mass, l2, debiased) and its spread; ``classwise_ece``; ``sb_ece`` (15
            soft bins, l2); ``mean_ece``, the mean of clients' own ECE by examples, an upper bound on ``ece``. All but
            the counts NaN without examples.
        """
        edges = width_edges(self.bins)
        count, nll, brier, own = (float(v) for v in pool.sums("scores", edges))
        width = BinSums.of_vector(pool.sums("bins", edges))
        by_mass = mass_edges(lambda at: pool.sums("counts_up_to", at).round().long(), self.bins)
        mass = BinSums.of_vector(pool.sums("bins", by_mass))
        by_class = pool.sums("class_bins", edges).view(pool.num_classes, -1)
        soft = BinSums.of_vector(pool.sums("soft_bins", torch.ones(1, dtype=torch.float64)))
        nothing = float("nan")
        return {
            "examples": count,
            "accuracy": float(width.correct.sum()) / count if count else nothing,
            "ece": width.error("l1"),
            "ece_se": spread(width, "l1", replicates=self.replicates),
            "ece_mass": mass.error("l2", debias=True),
            "ece_mass_se": spread(mass, "l2", debias=True, replicates=self.replicates),
            "classwise_ece": sum(BinSums.of_vector(row).error("l1") for row in by_class) / len(by_class),
            "sb_ece": soft.error("l2"),
            "nll": nll / count if count else nothing,
            "brier": brier / count if count else nothing,
            "mean_ece": own / count if count else nothing,
        }

    def diagram(self, pool: Pool) -> dict[str, list[float]]:
        """What a reliability diagram is drawn from: ``count``, ``confidence`` and ``correct``, sums over each bin."""
        sums = BinSums.of_vector(pool.sums("bins", width_edges(self.bins)))
        return {name: values.tolist() for name, values in vars(sums).items()}
