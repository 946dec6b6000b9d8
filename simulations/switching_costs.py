"""What a run had cost on every axis when it reached an accuracy."""

import math
from pathlib import Path

import numpy as np
import polars as pl

from fedbatch.batch.time_model import TimeModel
from simulations.study_runs import status

LINKS = {
    "seconds, LAN": TimeModel(0.001, 0.0, 0.001, 1e8, 1e8),
    "seconds, WAN": TimeModel(0.001, 0.0, 0.05, 2.5e6, 1.25e6),
}
AXES = ("rounds", "examples", "bytes", *LINKS)
SCORES = ("test_accuracy", "average_test_accuracy")
Budget = dict[str, float]
"""What a run may cost on every axis, and "model_bytes" of a model on its way."""


def costs(folder: Path) -> pl.DataFrame | None:
    """Test accuracies with the costs so far, in every round that was evaluated; None for a run that failed."""
    if status(folder) != "finished":
        return None
    rows = pl.read_parquet(folder / "rounds.parquet")
    clients = rows["cohort_size"].to_numpy()
    per_client = rows["global_batch"].to_numpy() / clients
    model_bytes = int(rows["bytes_up"][0] / clients[0])
    seconds = {name: np.cumsum([_seconds(link, b, model_bytes) for b in per_client]) for name, link in LINKS.items()}
    rows = rows.with_columns(
        (pl.col("bytes_up") + pl.col("bytes_down")).alias("bytes"),
        **{name: pl.Series(values) for name, values in seconds.items()},
    )
    return rows.filter(pl.col("test_accuracy").is_finite()).select(*SCORES, *AXES)


def _seconds(link: TimeModel, per_client: float, model_bytes: int) -> float:
    return link.round_seconds(0, np.zeros(1, np.int64), np.array([per_client]), model_bytes, model_bytes)


def round_cost(axis: str, size: tuple[int, int], budget: Budget) -> float:
    """Cost of a round of ``size`` clients and examples of each."""
    clients, per_client = size
    if axis in LINKS:
        return _seconds(LINKS[axis], per_client, int(budget["model_bytes"]))
    return {"rounds": 1, "examples": clients * per_client, "bytes": 2 * clients * budget["model_bytes"]}[axis]


def budgets(small: pl.DataFrame | None, rounds: int, clients: int, large: tuple[int, int]) -> Budget:
    """The lesser of what a small run of ``clients`` a round and ``rounds`` rounds of the large batch cost."""
    if small is None:
        raise ValueError("the first run failed; see error.txt in its folder")
    found = {"model_bytes": float(small["bytes"].to_numpy()[-1] / (2 * small["rounds"].to_numpy()[-1] * clients))}
    return found | {
        axis: float(min(rounds * round_cost(axis, large, found), small[axis].to_numpy()[-1])) for axis in AXES
    }


def spends(record: pl.DataFrame, budget: Budget) -> bool:
    """Whether a run goes on until the last budget is spent."""
    return all(record[axis].to_numpy()[-1] >= budget[axis] for axis in AXES)


def accuracy_at(record: pl.DataFrame | None, axis: str, budget: float, score: str) -> float:
    """Score when ``budget`` is spent, between evaluations by a line; NaN for a failed or too short run."""
    if record is None or record[axis].to_numpy()[-1] < 0.999 * budget:
        return math.nan
    return float(np.interp(budget, record[axis].to_numpy(), record[score].to_numpy()))


def cost_to(record: pl.DataFrame | None, axis: str, target: float, score: str) -> float:
    """What it cost to get to ``target``, between evaluations by a line; NaN if the run never did."""
    if record is None:
        return math.nan
    scores, spent = (np.append(0, record[column].to_numpy()) for column in (score, axis))
    reached = np.flatnonzero(scores >= target)
    if not len(reached):
        return math.nan
    here = int(reached[0])
    share = (target - scores[here - 1]) / (scores[here] - scores[here - 1])
    return float(spent[here - 1] + share * (spent[here] - spent[here - 1]))
