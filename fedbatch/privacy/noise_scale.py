"""The gradient noise scale of clipped gradients, from released values alone.

A release holds the noised sum of clipped contributions and the noised sum of their squared lengths. With B the
expected batch, e2 = E|c|^2 and G = E c, the mean's squared length has expectation ``|G|^2 + (1 - q) e2 / B + E / B^2``,
E the energy of the noise on the sum; the trace is ``e2 - |G|^2``. Our derivation; no single norm is needed.
"""

import math
from dataclasses import dataclass

from fedbatch.batch.noise_scale import NoiseScale


@dataclass(frozen=True)
class ReleaseNoise:
    """The noise of one release.

    Attributes:
        clip_norm: C.
        update: standard deviation of each coordinate of the noised sum.
        squares: standard deviation of the noised sum of squared lengths.
        size: d, number of coordinates.
        count: standard deviation of the noised number of units within C, where there is one.
    """

    clip_norm: float
    update: float
    squares: float
    size: int
    count: float = 0.0

    @property
    def energy(self) -> float:
        """Expected squared length of the noise on the sum."""
        return self.size * self.update**2


def estimate(
    sq_norm_of_mean: float, square_sum: float, batch: float, sample_rate: float, noise: ReleaseNoise
) -> NoiseScale:
    """Unbiased estimates of |G|^2 and the trace of one clipped contribution, in the unit of ``batch``.

    Args:
        sq_norm_of_mean: squared length of the noised sum over ``batch``.
        square_sum: noised sum of squared lengths.
        batch: B > 0, expected number of contributions.
        sample_rate: q of each.
        noise: what was added.

    The standard error of e2 takes ``|c|^4 <= C^2 |c|^2`` for the sampling part, so it is an upper bound.
    """
    e2 = square_sum / batch
    grad_sq = sq_norm_of_mean - noise.energy / batch**2 - (1 - sample_rate) * e2 / batch
    trace = e2 - grad_sq
    sampling = batch * noise.clip_norm**2 * max(e2, 0.0) if math.isfinite(noise.clip_norm) else batch * e2**2
    e2_se = math.sqrt(noise.squares**2 + sampling) / batch
    variance = max(trace, 0.0) / (noise.size * batch) + (noise.update / batch) ** 2  # of a coordinate of the mean
    along = variance + (1 - sample_rate) * max(grad_sq, 0.0) / batch  # drawing more or fewer also scales the mean
    grad_sq_se = math.sqrt(4 * max(grad_sq, 0.0) * along + 2 * noise.size * variance**2 + (e2_se / batch) ** 2)
    scale = trace / grad_sq if grad_sq > 0 else math.nan
    return NoiseScale(grad_sq, trace, scale, grad_sq_se, math.hypot(e2_se, grad_sq_se))
