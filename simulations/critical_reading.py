"""What the runs of a task say: rows for each run and window, and for each goal the truth beside the predictions."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

from fedbatch.batch.critical import fit_critical_batch_size
from fedbatch.batch.noiseless import LEAST, WINDOWS
from fedbatch.batch.one_run import to_losses
from fedbatch.results.critical import critical
from simulations.critical_runs import Arrivals, Run
from simulations.critical_tasks import Task

Row = dict[str, Any]
KEYS = ("optimizer", "task", "kind", "examples", "number", "goal")
READ_OUTS = {
    "told": "integral, smallest batch, both seeds (registered)",
    "one": "integral, smallest batch, one seed",
    "second": "integral, second smallest batch",
    "largest": "integral, largest batch",
    "quarter": "last quarter before the goal, mean over batches (first form)",
}


def rows(task: Task, goals: Sequence[float], found: Sequence[Arrivals]) -> tuple[list[Row], list[Row]]:
    """A row for each goal and run, and one for each window of a run that counts."""
    runs, windows = [], []
    for number, goal in enumerate(goals, 1):
        values = (task.optimizer, task.name, task.kind, float(task.examples), number, goal)
        for at in found:
            counted = {(at.best[goal], seed): run for seed, run in at.counted(goal)}
            for (rate, seed), run in at.runs.items():
                row = dict(zip(KEYS, values, strict=True)) | {"batch": at.batch, "rate": rate, "seed": seed}
                row |= {"steps": math.nan if run is None else run.steps_to(goal), "counts": (rate, seed) in counted}
                if row["counts"] and run is not None:
                    windows += [row | window for window in windows_of(run, goal)]
                    row |= answer(run, goal) if at is found[0] else {}
                runs.append(row)
    return runs, [{name: window[name] for name in window if name not in ("steps", "counts")} for window in windows]


def answer(run: Run, goal: float) -> Row:
    """What `fedbatch critical` says of a run."""
    told = critical(run.folder, [goal]) if run.folder else None
    (found,) = told.goals if told else to_losses(run.rounds, run.curve, [goal])
    low, high = found.b_crit_interval
    return {"s_min": found.s_min, "e_min": found.e_min, "low": low, "high": high, "saturated": found.saturated} | {
        "doubts": "; ".join(doubt.partition(":")[0] for doubt in told.doubts) if told else ""
    }


def windows_of(run: Run, goal: float) -> Iterator[Row]:
    """Mean estimates of trace and |G|^2 in up to 24 windows up to a loss, and the rounds in each, the last in part."""
    steps = run.steps_to(goal)
    count = math.ceil(steps)
    for number, window in enumerate(np.array_split(np.arange(count), min(WINDOWS, max(count // LEAST, 1))), 1):
        rounds = float(np.minimum(steps - window, 1.0).sum())
        trace, grad_sq = (float(values[window].mean()) for values in (run.rounds.traces, run.rounds.grad_sqs))
        yield {"window": number, "rounds": rounds, "trace": trace, "grad_sq": grad_sq}


def sums(windows: pl.DataFrame) -> tuple[float, float]:
    """S_min and E_min of windows, from their rounds, batch, trace and grad_sq; see `fedbatch.batch.one_run`."""
    rounds, batch = windows["rounds"].to_numpy(), windows["batch"].to_numpy()
    trace, grad_sq = (np.maximum(windows[name].to_numpy(), 0.0) for name in ("trace", "grad_sq"))
    share = np.where(grad_sq > 0, grad_sq * batch / (grad_sq * batch + trace), 0.0)
    return float(rounds @ share), float((rounds * batch) @ (1 - share))


def points(runs: pl.DataFrame, windows: pl.DataFrame) -> pl.DataFrame:
    """For each task and goal the fitted S_min, E_min and B_crit, and B_crit by every read-out of `READ_OUTS`.

    Goals that fewer than three batches reach, or not the smallest, are left out.
    """
    found = []
    for values, cell in runs.filter("counts").group_by(KEYS, maintain_order=True):
        own = windows.filter((pl.col(name) == value) for name, value in zip(KEYS, values, strict=True))
        smallest = cell.filter(pl.col("s_min").is_not_null())
        if cell["batch"].n_unique() < 3 or smallest.is_empty():
            continue
        row = dict(zip(KEYS, values, strict=True))
        fit = fit_critical_batch_size(effective(cell["batch"], row["examples"]), cell["steps"].to_numpy())
        row |= {"fit_s_min": fit.s_min, "fit_e_min": fit.e_min, "b_crit": fit.b_crit}
        row |= dict(zip(("b_crit_low", "b_crit_high"), fit.b_crit_interval, strict=True))
        row |= {"told_s_min": smallest["s_min"].mean(), "told_e_min": smallest["e_min"].mean()}
        row |= {name: smallest[name][0] for name in ("low", "high", "doubts")}
        row |= {"one": smallest["e_min"][0] / smallest["s_min"][0], "saturated": smallest["saturated"].mean()}
        found.append(row | read_outs(own) | {"told": row["told_e_min"] / row["told_s_min"]})
    return pl.DataFrame(found)


def read_outs(windows: pl.DataFrame) -> Row:
    """B_crit by integrals at the other batches, pooled over seeds, and by the last quarter as in the first form."""
    batches = windows["batch"].unique().sort().to_list()
    ratios = []
    for batch in batches:
        pooled = sums(windows.filter(pl.col("batch") == batch))
        ratios.append(pooled[1] / pooled[0] if pooled[0] > 0 else math.inf)
    last = windows.filter(pl.col("window") > 0.75 * pl.col("window").max().over("batch", "seed"))
    quarter = last.group_by("batch", "seed").agg(pl.col("trace").mean() / pl.col("grad_sq").mean())["trace"].to_numpy()
    noise = float(np.exp(np.log(quarter[quarter > 0]).mean())) if (quarter > 0).any() else math.nan
    return {"second": ratios[1], "largest": ratios[-1], "quarter": noise}


def effective(batches: pl.Series, examples: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Sizes with the noise of batches that are drawn without replacement: tr(Sigma) (1/B - 1/N)."""
    return 1 / (1 / batches.to_numpy() - 1 / examples)


def costs(runs: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """For each point and batch but the smallest: steps as measured, and as predicted from the smallest."""
    keys = [*KEYS, "batch"]
    means = runs.filter("counts").group_by(keys, maintain_order=True).agg(pl.col("steps").log().mean().exp())
    told = means.join(found.select(*KEYS, "told_s_min", "told_e_min", "fit_s_min"), on=KEYS)
    told = told.with_columns(times=pl.col("batch") / pl.col("batch").min().over(KEYS))
    inverse = 1 / pl.col("batch") - 1 / pl.col("examples")
    return told.filter(pl.col("times") > 1).with_columns(
        predicted=pl.col("told_s_min") + pl.col("told_e_min") * inverse
    )
