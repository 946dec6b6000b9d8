"""How often slow clients are heard, by way of stepping: the queue of who is done when, without any training.

python -m simulations.slow_clients      the table's last column in docs/asynchronous.md, a second
"""

import numpy as np
import torch

from fedbatch.asynchronous import FedBuff, Polynomial
from fedbatch.asynchronous.under_way import UnderWay
from fedbatch.batch import TimeModel
from fedbatch.clients.cohort import sample_cohort

CLIENTS, EXAMPLES, MODEL_BYTES, STEPS = 100, 4, 203_560, 300
TIMES = TimeModel(0.1, 1.5, 0.05, 2.5e6, 1.25e6)
WAYS = {
    "synchronous": (16, 1.0, 20),
    "over_selection=1.5": (16, 1.5, 0),
    "concurrency 2": (16, 2.0, 20),
    "concurrency 4": (16, 4.0, 20),
    "concurrency 4, cohort_size=4": (4, 4.0, 20),
}
"""Of each: the buffer, clients at work in buffers, and the largest staleness."""


def share_of_slow(buffer: int, concurrency: float, max_staleness: int, seed: int) -> float:
    """Share of the updates that comes from the slowest quarter of the clients."""
    fedbuff, clients = FedBuff(concurrency, max_staleness, Polynomial(0.5)), np.arange(CLIENTS)
    seconds = TIMES.client_seconds(seed, clients, np.full(CLIENTS, EXAMPLES), MODEL_BYTES, MODEL_BYTES)
    slow = torch.from_numpy(np.argsort(seconds)[CLIENTS * 3 // 4 :].copy())
    now, clock, found = UnderWay(), 0.0, 0
    for step in range(STEPS):
        idle = np.setdiff1d(clients, now.clients.numpy())
        drawn = sample_cohort(idle, "uniform", fedbuff.at_work(buffer) - len(now.clients), seed, step)
        now = now.begun(torch.from_numpy(drawn), step, torch.from_numpy(clock + seconds[drawn]), {}, "")
        taken, rest = now.select(slice(buffer)), now.select(slice(buffer, None))
        clock, found = float(taken.due.max()), found + int(torch.isin(taken.clients, slow).sum())
        now = rest.select(step + 1 - rest.versions <= max_staleness)
    return found / (STEPS * buffer)


def main() -> None:
    """Print the share of each way, for three seeds."""
    for name, (buffer, concurrency, most) in WAYS.items():
        shares = [share_of_slow(buffer, concurrency, most, seed) for seed in range(3)]
        print(f"{name:30} {min(shares):.1%} to {max(shares):.1%}")


if __name__ == "__main__":
    main()
