"""What a run had cost on every axis when it reached an accuracy."""

import math
from pathlib import Path

import numpy as np
import polars as pl
from study_runs import status

from fedbatch.batch.time_model import TimeModel

LINKS = {
    "seconds, LAN": TimeModel(0.001, 0.0, 0.001, 1e8, 1e8),
    "seconds, WAN": TimeModel(0.001, 0.0, 0.05, 2.5e6, 1.25e6),
}
AXES = ("rounds", "examples", "bytes", *LINKS)


def costs(folder: Path) -> pl.DataFrame | None:
    """Test accuracy with the costs so far, in every round that was evaluated; None for a run that failed."""
    if status(folder) != "finished":
        return None
    rows = pl.read_parquet(folder / "rounds.parquet")
    clients = rows["cohort_size"].to_numpy()
    per_client = rows["global_batch"].to_numpy() / clients
    model_bytes = int(rows["bytes_up"][0] / clients[0])
    seconds = {
        name: np.cumsum(
            [link.round_seconds(0, np.zeros(1, np.int64), np.array([b]), model_bytes, model_bytes) for b in per_client]
        )
        for name, link in LINKS.items()
    }
    rows = rows.with_columns(
        (pl.col("bytes_up") + pl.col("bytes_down")).alias("bytes"),
        **{name: pl.Series(v) for name, v in seconds.items()},
    )
    return rows.filter(pl.col("test_accuracy").is_finite()).select("test_accuracy", *AXES)


def budgets(small: pl.DataFrame | None, rounds: int, clients: int, large: tuple[int, int]) -> dict[str, float]:
    """The lesser of what a small run of ``clients`` a round and ``rounds`` rounds of the large batch cost."""
    if small is None:
        raise ValueError("the first run failed; see error.txt in its folder")
    many, per_client = large
    model_bytes = small["bytes"].to_numpy()[-1] / (2 * small["rounds"].to_numpy()[-1] * clients)
    found = {"rounds": rounds, "examples": rounds * many * per_client, "bytes": 2 * rounds * many * model_bytes}
    for name, link in LINKS.items():
        one = link.round_seconds(0, np.zeros(1, np.int64), np.array([per_client]), int(model_bytes), int(model_bytes))
        found[name] = rounds * one
    return {axis: float(min(cost, small[axis].to_numpy()[-1])) for axis, cost in found.items()}


def accuracy_at(record: pl.DataFrame | None, axis: str, budget: float) -> float:
    """Test accuracy when ``budget`` is spent, between evaluations by a line; NaN for a failed or too short run.

    Three neighbouring evaluations are averaged; of a run's first and last there is one.
    """
    if record is None or record[axis].to_numpy()[-1] < 0.999 * budget:
        return math.nan
    return float(np.interp(budget, record[axis].to_numpy(), _smooth(record)))


def cost_to(record: pl.DataFrame | None, axis: str, target: float) -> float:
    """What it cost to get to ``target`` accuracy; NaN if the run never did."""
    if record is None:
        return math.nan
    reached = np.flatnonzero(_smooth(record) >= target)
    return float(record[axis].to_numpy()[reached[0]]) if len(reached) else math.nan


def _smooth(record: pl.DataFrame) -> np.ndarray:
    values = record["test_accuracy"].to_numpy().copy()
    values[1:-1] = (values[:-2] + values[1:-1] + values[2:]) / 3
    return values
