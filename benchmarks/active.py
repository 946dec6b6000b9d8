"""Time, memory and fidelity of selection at scale, on one core.

    python -m benchmarks.active --json docs/results/active_scale.json

Points are near-duplicates of Zipf-many originals, as in a pool crawled from the web: 64 dimensions, originals Gaussian,
copies a tenth of that away. Margins are uniform.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

import numpy as np

from fedbatch.active import cluster, cluster_margin
from fedbatch.active.clustering import CELL_POINTS, EXACT_POINTS, cells, in_cells

DIMENSIONS, MEAN_SIZE = 64, 10.0


def points(count: int, seed: int = 0) -> np.ndarray:
    """Near-duplicates (count, 64), float32."""
    generator = np.random.default_rng(seed)
    originals = max(1, count // 20)
    weights = 1 / np.arange(1, originals + 1)
    owner = generator.choice(originals, size=count, p=weights / weights.sum())
    centres = generator.normal(size=(originals, DIMENSIONS)).astype(np.float32)
    return centres[owner] + 0.1 * generator.normal(size=(count, DIMENSIONS)).astype(np.float32)


def timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Seconds by the clock, and of this one thread, which do not count what else the machine does; and the result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return {"wall": round(time.perf_counter() - wall, 1), "cpu": round(time.process_time() - cpu, 1)}, result


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Size of the intersection over that of the union."""
    return len(np.intersect1d(one, other)) / len(np.union1d(one, other))


def fidelity(seed: int) -> dict[str, float]:
    """Selections of 500 out of 5,000 candidates by clusters in cells, beside those by exact clusters."""
    x, draws = points(EXACT_POINTS, seed), np.random.default_rng(seed + 100)
    margins = draws.random(EXACT_POINTS)
    in_parts = in_cells(x, cells(x, CELL_POINTS), "euclidean")
    labels = {
        "exact": cluster(x, mean_cluster_size=MEAN_SIZE),
        "cells": in_parts.cut(in_parts.height_of(len(x) / MEAN_SIZE)),
        "one cluster": np.zeros(len(x), np.int64),  # plain margin
    }
    everything = np.arange(len(x))
    chosen = {
        name: cluster_margin(margins, own, everything, candidates=5_000, labels_wanted=500)
        for name, own in labels.items()
    }
    covered = {name: len(np.unique(labels["exact"][positions])) for name, positions in chosen.items()}
    return {
        "jaccard of cells with exact": jaccard(chosen["cells"], chosen["exact"]),
        "jaccard of margin with exact": jaccard(chosen["one cluster"], chosen["exact"]),
        **{f"exact clusters covered by {name}": float(count) for name, count in covered.items()},
    }


def peak_kib() -> int:
    """Largest resident memory so far, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def at_scale(count: int) -> dict[str, Any]:
    """Clusters of a large pool, and a tenth of it selected."""
    large, found = points(count), dict[str, Any]()
    before = peak_kib()
    found[f"seconds of clustering {count:,} in cells"], clusters = timed(
        lambda: cluster(large, mean_cluster_size=MEAN_SIZE)
    )
    found["GB at most, and before that"] = [round(kib / 2**20, 2) for kib in (peak_kib(), before)]
    found["clusters"] = int(clusters.max()) + 1
    margins, everything = np.random.default_rng(1).random(count), np.arange(count)
    found[f"seconds of selecting {count // 10:,} of {count:,}"], _ = timed(
        lambda: cluster_margin(margins, clusters, everything, candidates=count, labels_wanted=count // 10, seed=0)
    )
    return found


def main() -> None:
    """Measure all and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    parser.add_argument("--points", type=int, default=1_000_000, help="of the large pool")
    given = parser.parse_args()
    found = at_scale(given.points)
    small = points(EXACT_POINTS)
    found["seconds of clustering 10,000"], _ = timed(lambda: cluster(small, mean_cluster_size=MEAN_SIZE))
    rows = [fidelity(seed) for seed in range(3)]
    found |= {name: [round(row[name], 3) for row in rows] for name in rows[0]}
    text = json.dumps(found, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
