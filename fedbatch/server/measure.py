"""What a round says about noise: from an aggregate to estimates, averages and columns of the record."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedbatch.aggregation.sums import Aggregate
from fedbatch.batch import drift, gain
from fedbatch.batch.average import Averages, Interval, RunningNoiseScale
from fedbatch.batch.gain import GroupSums, RunningGain
from fedbatch.batch.noise_scale import NoiseScale, estimate_weighted
from fedbatch.clients.job import ClientWork
from fedbatch.compression import Compression


@dataclass(frozen=True)
class Measured:
    """Estimates of one round.

    Attributes:
        size: global batch in the unit of the noise scale.
        unit: "examples", or "clients" after local steps, when updates are not gradients at one point.
        noise: the noise scale, None with fewer than two clients.
        drift: sampling noise and drift apart, None unless halves were measured.
        noise_per_unit: energy of privacy noise on the sum that comes with every unit of ``size``.
        fixed_noise: energy of privacy noise on the sum, whatever its size.
        groups: what the groups of the cohort say, in rounds that are asked group by group.
        compression: variance that compression adds for every unit, as the trace counts it; None without.
    """

    size: float
    unit: str
    noise: NoiseScale | None
    drift: drift.Drift | None
    noise_per_unit: float = 0.0
    fixed_noise: float = 0.0
    groups: GroupSums | None = None
    compression: float | None = None

    @property
    def is_private(self) -> bool:
        """Whether privacy noise is in what was measured."""
        return self.noise_per_unit + self.fixed_noise > 0


def measure(total: Aggregate, work: ClientWork, population: int, compression: Compression | None = None) -> Measured:
    """Estimate the noise scale, and the drift where every client sent its halves.

    Norms are those of updates before compression. Its errors make the mean longer, by `Aggregate.compression_energy`
    where they are independent; that is taken off where compression is unbiased, so that the estimates stay so.
    """
    sizes = total.num_examples.astype(np.float64) if work.is_gradient else np.ones(len(total.clients))
    unit = "examples" if work.is_gradient else "clients"
    energy, added = total.compression_energy or 0.0, None
    if total.compression_energy is not None:
        added = energy * total.weight_sum**2 / float(total.weights**2 @ (1 / sizes))
    if compression is not None and not compression.keeps_length:
        return Measured(float(sizes.sum()), unit, None, None)
    if len(total.clients) < 2:
        return Measured(float(sizes.sum()), unit, None, None, compression=added)
    sq_norm_of_mean, variance = total.sq_norm_of_mean, 0.0
    if compression is not None and compression.is_unbiased:
        sq_norm_of_mean -= energy
        variance = error_variance(energy, total.compression_overlap, sq_norm_of_mean)
    noise = estimate_weighted(total.sq_norms, sizes, sq_norm_of_mean, weights=total.weights, error_variance=variance)
    separated = None
    if len(total.half_dots):
        separated = drift.separate(
            total.sq_norms,
            sizes,
            total.weights,
            total.half_dots,
            total.half_sq_diffs,
            sq_norm_of_mean,
            all_clients=len(total.clients) == population,
        )
    return Measured(float(sizes.sum()), unit, noise, separated, compression=added)


def error_variance(energy: float, overlap: float, sq_norm_of_mean: float) -> float:
    """Variance of ``|mean + error|^2 - energy``, for errors with that energy and overlap of different clients.

    It is ``2 overlap + 4 mean' D mean``, D the variances of the error. The mean is taken to point where errors do, as
    `noise_scale` does with sampling noise, since the errors of a coordinate grow with its numbers.
    """
    along = max(sq_norm_of_mean, 0.0) * overlap / energy if energy else 0.0
    return 2 * overlap + 4 * along


def deciding(noise: RunningNoiseScale, measured: Measured) -> Interval | None:
    """What a controller may decide on: with privacy noise counted in, and None while that hides the gradient."""
    if measured.is_private:
        mean, numerator = noise.average(), noise.average().trace + measured.noise_per_unit
        if not (mean.grad_sq > 2 * mean.grad_sq_se and mean.trace_se <= 0.5 * numerator):
            return None
    return noise.interval(measured.noise_per_unit, measured.fixed_noise)


def raw(measured: Measured) -> tuple[float, float] | tuple[None, None]:
    """Trace and squared gradient of this round alone, with privacy noise counted in the trace; None twice without.

    The trace over the batch is then the energy of all noise on the mean.
    """
    if measured.noise is None or not measured.size:
        return None, None
    further = measured.noise_per_unit + measured.fixed_noise / measured.size
    return measured.noise.trace + further, measured.noise.grad_sq


def columns(measured: Measured, averages: Averages) -> dict[str, Any]:
    """Columns of the record: averages under their plain names, this round's raw estimates as ``round_*``."""
    nan, noise = float("nan"), averages.noise
    now = measured.noise or NoiseScale(nan, nan, nan, nan, nan)
    average = noise.interval() or Interval(nan, nan, nan, 0.0)
    further: dict[str, Any] = {}
    if measured.drift is not None:
        further = {"b_within": averages.within.average().scale, "m_drift": averages.between.average().scale}
    if measured.compression is not None:
        further |= {"compression_variance": measured.compression}
    if averages.gain.count:
        further |= gain_columns(averages.gain)
    if measured.is_private:
        counted = noise.interval(measured.noise_per_unit, measured.fixed_noise) or Interval(nan, nan, nan, 0.0)
        names = ("noise_scale_dp", "noise_scale_dp_low", "noise_scale_dp_high")
        further |= dict(zip(names, (counted.value, counted.low, counted.high), strict=True))
    return {
        "noise_scale": average.value,
        "noise_scale_low": average.low,
        "noise_scale_high": average.high,
        "noise_scale_unit": measured.unit,
        "noise_scale_effective_rounds": average.effective_rounds,
        "round_grad_sq": now.grad_sq,
        "round_grad_sq_se": now.grad_sq_se,
        "round_trace": now.trace,
        "round_trace_se": now.trace_se,
        **further,
    }


def gain_columns(running: RunningGain) -> dict[str, Any]:
    """What doubling buys, B_half and noise scales of other geometries, and of layers where they are measured."""
    curve = gain.fit(running)
    assert curve is not None
    traces, grad_sqs = running.layers[::2], running.layers[1::2]
    each = {
        "layer_noise_scales": list(map(gain.ratio, traces, grad_sqs)),
        "layer_traces": list(traces),
        "layer_grad_sqs": list(grad_sqs),
    }
    return {
        "gain_2x": curve.doubling,
        "gain_2x_se": curve.doubling_se,
        "b_half": curve.half,
        "b_half_low": curve.half_low,
        "b_half_high": curve.half_high,
        **gain.scales(running),
        **(each if traces else {}),
    }
