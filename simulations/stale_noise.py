"""By how much stale updates move the noise scale: a noisy quadratic whose true one is known.

    python -m simulations.stale_noise       a table, half a minute

L(w) = sum_i h_i w_i^2 / 2, and clients with gradients h_i w_i + s z_i / sqrt(b) at the w that they began with. Steps of
FedBuff (Nguyen et al. 2022) with K updates; clients are as fast as exp(spread z). What stale updates add on average to
the estimate of tr(S) follows from the gradients at the versions in the buffer: b K / (K - 1) times their variance.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fedbatch.asynchronous import Polynomial
from fedbatch.asynchronous.under_way import UnderWay
from fedbatch.batch.noise_scale import estimate_weighted

Floats = npt.NDArray[np.float64]
DIMENSIONS, NOISE, BATCH, BUFFER = 100, 1.0, 4, 16
CURVATURES = np.geomspace(1.0, 0.05, DIMENSIONS)
TRACE = DIMENSIONS * NOISE**2


@dataclass(frozen=True)
class Run:
    """What a run measured, step by step; each (T,).

    Attributes:
        staleness: mean over the buffer, in steps.
        trace: estimates of tr(S), whose true value is `TRACE`.
        grad_sq: estimates of |G|^2.
        true_grad_sq: its value at the parameters that are stepped.
        expected_trace: what the estimate of tr(S) is on average, by the gradients at the versions in the buffer.
    """

    staleness: Floats
    trace: Floats
    grad_sq: Floats
    true_grad_sq: Floats
    expected_trace: Floats


def launched(lr: float, concurrency: float, seed: int, steps: int = 200, spread: float = 1.0) -> Run:
    """One run; ``concurrency`` is in buffers."""
    rng, factors = np.random.default_rng([seed, 21]), Polynomial(0.5)
    w, now, clock, number = np.ones(DIMENSIONS), UnderWay(), 0.0, 0
    rows = []
    for step in range(steps):
        count = round(concurrency * BUFFER) - len(now.clients)
        due = torch.from_numpy(clock + np.exp(spread * rng.standard_normal(count)))
        ids = torch.arange(number, number + count)  # many clients, each of whom takes part once
        now, number = now.begun(ids, step, due, {"w": torch.from_numpy(w)}, ""), number + count
        taken, now = now.select(slice(BUFFER)), now.select(slice(BUFFER, None))
        clock = float(taken.due.max())
        begun = np.stack([taken.models[int(version)]["w"].numpy() for version in taken.versions])
        means = CURVATURES * begun
        updates = means + NOISE * rng.standard_normal(begun.shape) / BATCH**0.5
        ages = step - taken.versions.numpy()
        weights = factors(ages)
        share = weights / weights.sum()
        mean = share @ updates
        found = estimate_weighted((updates**2).sum(axis=1), np.full(BUFFER, BATCH), float(mean @ mean), weights=weights)
        between = float(share @ ((means - share @ means) ** 2).sum(axis=1))
        expected = TRACE + BATCH * between / (1 - float(share @ share))
        gradient = CURVATURES * w
        rows.append((ages.mean(), found.trace, found.grad_sq, float(gradient @ gradient), expected))
        w = w - lr * float(weights.mean()) * mean
    return Run(*np.array(rows).T)


def main() -> None:
    """Print the table: estimates over true values, of the first fifty steps and of those after the hundredth."""
    print("| lr | at work, in buffers | staleness | steps | tr(S) | \\|G\\|^2 | noise scale |")
    print("|---|---|---|---|---|---|---|")
    for lr in (0.05, 0.2):
        for concurrency in (1, 2, 4, 8):
            runs = [launched(lr, concurrency, seed) for seed in range(100)]
            for name, part in (("first 50", slice(50)), ("after 100", slice(100, None))):
                trace = np.mean([run.trace[part] for run in runs]) / TRACE
                of_runs = [(run.grad_sq[part].sum(), run.true_grad_sq[part].sum()) for run in runs]
                grad_sq = np.sum(of_runs, axis=0)[0] / np.sum(of_runs, axis=0)[1]
                age = np.mean([run.staleness[part] for run in runs])
                scale = trace / grad_sq
                print(f"| {lr} | {concurrency} | {age:.1f} | {name} | {trace:.3f} | {grad_sq:.2f} | {scale:.2f} |")


if __name__ == "__main__":
    main()
