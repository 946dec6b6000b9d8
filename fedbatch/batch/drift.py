"""Sampling noise and client drift told apart, by splitting each client's batch in halves.

With non-IID clients, client k's gradient is G + delta_k plus sampling noise, and D = E|delta_k|^2 adds to what the
plain estimate takes for noise. The two halves of one batch share delta_k but not the sampling noise.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbatch.batch.noise_scale import NoiseScale

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Drift:
    """Estimates of one round, each unbiased; average them over rounds before dividing.

    Attributes:
        grad_sq: |G|^2, of the gradient averaged over clients.
        trace_within: tr(Sigma), sampling noise of one example within a client.
        drift_sq: D, mean squared distance of a client's own gradient from G.
    """

    grad_sq: float
    trace_within: float
    drift_sq: float

    def within(self) -> NoiseScale:
        """Sampling noise as a noise scale: ``scale`` is B_within in examples."""
        return self._ratio(self.trace_within)

    def between(self) -> NoiseScale:
        """Client drift as a noise scale: ``scale`` is M_drift in clients."""
        return self._ratio(self.drift_sq)

    def _ratio(self, trace: float) -> NoiseScale:
        return NoiseScale(self.grad_sq, trace, trace / self.grad_sq if self.grad_sq > 0 else math.nan, 0.0, 0.0)


def separate(
    sq_norms: Floats,
    batch_sizes: Floats,
    weights: Floats,
    half_dots: Floats,
    half_sq_diffs: Floats,
    sq_norm_of_mean: float,
    *,
    all_clients: bool,
) -> Drift:
    """Separate the two kinds of noise in one round.

    Args:
        sq_norms: (K,) |g_k|^2 of the whole batches.
        batch_sizes: (K,) examples b_k >= 2.
        weights: (K,) positive weights of the mean.
        half_dots: (K,) inner product of the two half gradients, unbiased for |G_k|^2.
        half_sq_diffs: (K,) |h_1 - h_2|^2 / (1/b_1 + 1/b_2), unbiased for tr(Sigma_k).
        sq_norm_of_mean: |sum w_k g_k|^2.
        all_clients: whether the cohort is the whole population. Then the deltas sum to zero and the sampling noise is
            the only noise of the mean; else clients are a random sample and drift is noise of the mean too.

    >>> one = np.ones(2)
    >>> separate(5 * one, 2 * one, one, 4 * one, 2 * one, 2.5, all_clients=False)
    Drift(grad_sq=0.0, trace_within=2.0, drift_sq=4.0)
    """
    w = weights / weights.sum()
    trace = float(w @ half_sq_diffs)
    own = float(w @ half_dots)
    if all_clients:
        grad_sq = sq_norm_of_mean - float(np.sum(w**2 * half_sq_diffs / batch_sizes))
    else:
        concentration = float(np.sum(w**2))
        grad_sq = (sq_norm_of_mean - float(np.sum(w**2 * sq_norms))) / (1 - concentration)
    return Drift(grad_sq, trace, own - grad_sq)
