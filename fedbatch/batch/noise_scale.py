"""The gradient noise scale B = tr(Sigma) / |G|^2 from one round's norms (McCandlish et al. 2018, app. A.1).

Client k sends the mean gradient g_k of b_k examples, so that E|g_k|^2 = |G|^2 + tr(Sigma)/b_k, while the mean of the
cohort has less noise. Two such equations give both unknowns without any single example's gradient.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class NoiseScale:
    """Unbiased estimates of |G|^2 and tr(Sigma), their ratio, and their standard errors.

    Attributes:
        grad_sq: estimate of |G|^2; may be negative in a noisy round, so average before dividing.
        trace: estimate of tr(Sigma), the noise of one example's gradient.
        scale: ``trace / grad_sq`` in units of the batch sizes (examples, or clients), NaN if ``grad_sq`` <= 0.
        grad_sq_se: standard error of ``grad_sq``.
        trace_se: standard error of ``trace``.
    """

    grad_sq: float
    trace: float
    scale: float
    grad_sq_se: float
    trace_se: float


def estimate(
    sq_norms: npt.ArrayLike,
    batch_sizes: npt.ArrayLike,
    sq_norm_of_mean: float,
    *,
    noise_variance: float = 0.0,
) -> NoiseScale:
    """Minimum-variance unbiased estimate from unequal batches, for the example-weighted mean.

    With B = sum b_k and N = |sum b_k g_k / B|^2: ``trace = (sum b_k |g_k|^2 - B N) / (K - 1)``, the residual of a
    one-way analysis of variance, and ``grad_sq = N - trace / B``.

    Args:
        sq_norms: (K,) squared norms |g_k|^2, K >= 2.
        batch_sizes: (K,) numbers of examples b_k > 0 behind each g_k.
        sq_norm_of_mean: N, squared norm of the example-weighted mean gradient.
        noise_variance: expected squared norm of the privacy noise in each client's gradient *sum*, d sigma^2 C^2;
            |g_k|^2 then carries noise_variance / b_k^2, which is subtracted before estimating.

    Raises:
        ValueError: fewer than two clients, or lengths that differ.

    >>> n = estimate([5.0, 5.0], [2, 2], 3.0)   # |G|^2 + S/2 = 5 and |G|^2 + S/4 = 3
    >>> n.grad_sq, n.trace, n.scale
    (1.0, 8.0, 8.0)
    """
    batch_sizes = np.asarray(batch_sizes, dtype=np.float64)
    return estimate_weighted(sq_norms, batch_sizes, sq_norm_of_mean, weights=batch_sizes, noise_variance=noise_variance)


def estimate_weighted(
    sq_norms: npt.ArrayLike,
    batch_sizes: npt.ArrayLike,
    sq_norm_of_mean: float,
    *,
    weights: npt.ArrayLike,
    noise_variance: float = 0.0,
    error_variance: float = 0.0,
) -> NoiseScale:
    """The same for a mean taken with any positive ``weights``; unbiased, and best when weights equal batch sizes.

    With w normalised, n = sum w_k |g_k|^2 and z_a = sum w_k/b_k, z_w = sum w_k^2/b_k (1/z_w is the effective batch):
    ``trace = (n - N) / (z_a - z_w)`` and ``grad_sq = N - z_w trace``. ``error_variance`` is that of N itself, where N
    was not measured exactly.
    """
    norms, sizes = np.asarray(sq_norms, dtype=np.float64), np.asarray(batch_sizes, dtype=np.float64)
    w = np.asarray(weights, dtype=np.float64)
    if not len(norms) == len(sizes) == len(w):
        raise ValueError(f"sq_norms and batch_sizes must be equally long (got {len(norms)} and {len(sizes)})")
    if len(norms) < 2:
        raise ValueError(f"the noise scale needs at least two clients in a round (got {len(norms)})")
    if (sizes <= 0).any() or (w <= 0).any():
        raise ValueError("batch_sizes and weights must be positive")
    w = w / w.sum()
    norms = norms - noise_variance / sizes**2
    sq_norm_of_mean = sq_norm_of_mean - noise_variance * float(np.sum((w / sizes) ** 2))
    z_local, z_mean = float(np.sum(w / sizes)), float(np.sum(w**2 / sizes))
    trace = (float(w @ norms) - sq_norm_of_mean) / (z_local - z_mean)
    grad_sq = sq_norm_of_mean - z_mean * trace
    grad_sq_se, trace_se = _standard_errors(norms, sizes, z_mean, grad_sq, trace)
    if error_variance:
        further = math.sqrt(error_variance) / (z_local - z_mean)
        grad_sq_se, trace_se = math.hypot(grad_sq_se, z_local * further), math.hypot(trace_se, further)
    scale = trace / grad_sq if grad_sq > 0 else math.nan
    return NoiseScale(grad_sq, trace, scale, grad_sq_se, trace_se)


def _standard_errors(
    norms: npt.NDArray[np.float64],
    sizes: npt.NDArray[np.float64],
    z_mean: float,
    grad_sq: float,
    trace: float,
) -> tuple[float, float]:
    """Standard errors from the spread of the clients' norms, for Gaussian noise.

    b_k |g_k|^2 scatters with variance 2 tau + 4 b_k G'Sigma G, where tau = tr(Sigma^2). One spread cannot tell the two
    apart, so we take G to point where noise does: G'Sigma G = |G|^2 tau / tr(Sigma), exact for isotropic noise. Then
    Var trace = 2 tau / (K - 1) and Var grad_sq = 4 G'Sigma G / B + 2 tau K / ((K - 1) B^2), B the effective batch.
    """
    count = len(norms)
    scatter = float(np.sum((sizes * (norms - grad_sq) - trace) ** 2)) / (count - 1)
    alignment = max(grad_sq, 0.0) / trace if trace > 0 else 0.0
    tau = scatter / (2 + 4 * float(sizes.mean()) * alignment)
    variance = 4 * alignment * tau * z_mean + 2 * tau * count / (count - 1) * z_mean**2
    return math.sqrt(variance), math.sqrt(2 * tau / (count - 1))
