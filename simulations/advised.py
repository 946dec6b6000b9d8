"""Is the advice right on models of one's own? Rounds that `fedbatch.advise` promises, and rounds that they take.

    python -m simulations.advised             four tasks, two seeds; half an hour of a core
    python -m simulations.advised --quick     one task, one seed, half a minute

For each task a probe of two minutes at most, then the runs that two of its lines propose, where only rounds cost and
where only examples do, to the loss of the probe; each also at half of the proposed learning rate. Writes
docs/results/advised.parquet and .md.
"""

import math
import re
import shutil
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

import fedbatch
from fedbatch.core.files import from_json, to_json
from fedbatch.data import Dataset
from fedbatch.results.critical_rows import curve_of, read
from simulations.study import Study, command
from simulations.study_runs import run_once, status
from simulations.tables import table

SUMMARY = __doc__.splitlines()[0]
LINES = ("rounds", "examples")
LONGER, READINGS = 1.6, 64
"""Runs have so many times the rounds that were promised, and so many evaluations."""
SHARES = (1.0, 0.5)
"""Of the proposed learning rate."""
HERE = "simulations.advised"
REGRESSION = ("task=regression", "task.standardise=true", "model=mlp", "model.width=64")
TASKS: dict[str, tuple[str, ...]] = {
    "LSTM, next character of plays": (
        *("dataset=shakespeare_roles", "dataset.context=32", "partitioner=natural", "population=780"),
        *("dataset.min_sequences=16", "model=logistic", f"model._target_={HERE}.LSTM", "server_optimizer.lr=1"),
    ),
    "regression, 4,000 rows of 10 numbers": (*REGRESSION, "dataset=digits", f"dataset._target_={HERE}.friedman"),
    "regression, 442 patients": (
        *(*REGRESSION, "dataset=digits", f"dataset._target_={HERE}.diabetes"),
        *("population=20", "cohort_size=10", "client_batch_size=4"),
    ),
    "ResNet-18 of width 8, Fashion images": ("model=resnet18", "model.width=8"),
}
QUICK = {"regression, 442 patients": TASKS["regression, 442 patients"]}


class LSTM(nn.Module):
    """Logits ``(n, positions, num_classes)`` of the next token, from tokens ``(n, positions)``."""

    def __init__(self, input_shape: Sequence[int], num_classes: int, width: int = 64):
        super().__init__()
        self.tokens = nn.Embedding(num_classes, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.out = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of tokens ``x``."""
        logits: Tensor = self.out(self.lstm(self.tokens(x))[0])
        return logits


def friedman() -> Dataset:
    """5,000 rows of the regression problem "Friedman 1", with noise of standard deviation 1."""
    from sklearn.datasets import make_friedman1

    x, y = make_friedman1(5000, noise=1.0, random_state=0)
    return _rows("friedman", x, y, 4000)


def diabetes() -> Dataset:
    """442 patients by ten measurements, and the progress of their disease after a year."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    return _rows("diabetes", x, y, 353)


def _rows(name: str, x: np.ndarray, y: np.ndarray, train: int) -> Dataset:
    order = np.random.default_rng(0).permutation(len(y))
    x = ((x - x.mean(axis=0)) / x.std(axis=0))[order].astype(np.float32)
    y = y[order].astype(np.float32)
    return Dataset(name, x[:train], y[:train], x[train:], y[train:], num_classes=1)


def main(arguments: list[str] | None = None) -> None:
    """Probe, run, write the table."""
    with command("advised", SUMMARY, "one task, one seed", arguments, True) as study:
        tasks, seeds = (QUICK, (1,)) if study.quick else (TASKS, (1, 2))
        minutes = 0.2 if study.quick else 2.0
        cells = [partial(measure, study, name, options, seeds, minutes) for name, options in tasks.items()]
        rows = pl.DataFrame(study.rows(cells))
        study.save(rows)
        study.tell(markdown(rows))


def measure(
    study: Study, name: str, options: tuple[str, ...], seeds: tuple[int, ...], minutes: float
) -> list[dict[str, Any]]:
    """Rows of a task: a line of the advice, a share of its rate and a seed each. They are kept in the task's folder."""
    folder = study.runs / "tasks" / re.sub(r"\W+", "_", name)
    if (kept := folder / "rows.json").is_file():
        return list(from_json(kept.read_bytes())["rows"])
    shutil.rmtree(folder, ignore_errors=True)  # a probe that broke off is no probe
    torch.set_num_threads(1)
    options = (*options, "training_set_examples=2000", "report=none")
    advice = fedbatch.advise(*options, minutes=minutes, run_dir=str(folder / "probe"))
    goal, rows = advice.found.goals[-1].loss, []
    for line in advice.rows:
        if line.cost.name not in LINES:
            continue
        rounds = math.ceil(LONGER * line.rounds)
        longer = (f"rounds={rounds}", f"evaluate_every_rounds={max(rounds // READINGS, 1)}")
        replaced = "rounds=", "run_dir=", "server_optimizer.lr="
        proposed = [each for each in advice.proposed(line) if not each.startswith(replaced)]
        low, high = line.rounds_interval
        row = {"task": name, "line": line.cost.name, "batch": line.batch, "loss": goal, "promised": line.rounds}
        for share, seed in product(SHARES, seeds):
            rate = share * (advice.lr or 0.0) * line.lr_factor
            run = [*proposed, *longer, f"server_optimizer.lr={rate:.3g}", f"seed={seed}"]
            taken = steps_to(run_once(study.runs, run), goal)
            rows.append(row | {"low": low, "high": high, "ran": rounds, "share": share, "seed": seed, "taken": taken})
    kept.write_text(to_json({"rows": rows}))
    return rows


def steps_to(folder: Path, loss: float) -> float:
    """Rounds to a loss, as `fedbatch critical` reads them; NaN where a run failed or did not get there."""
    return curve_of(folder, read(folder)).falling().steps_to(loss) if status(folder) == "finished" else math.nan


def markdown(rows: pl.DataFrame) -> str:
    """A line for each task and cost, and how far promises are off over all."""
    lines = []
    for (name, line), own in rows.group_by("task", "line", maintain_order=True):
        first = own.row(0, named=True)
        taken = [_taken(own.filter(pl.col("share") == share)) for share in SHARES]
        promised = f"{first['promised']:,.0f} ({first['low']:,.0f}-{first['high']:,.0f})"
        lines.append([str(name), f"{first['loss']:.3g}", str(line), f"{first['batch']:g}", promised, *taken])
    heads = ["", "to a loss of", "where only these cost", "batch", "rounds promised", "taken", "at half the rate"]
    return table(heads, lines) + f"\n{_in_words(rows)}\n"


def _taken(runs: pl.DataFrame) -> str:
    pairs = runs.select("taken", "ran").iter_rows()
    return ", ".join(f"{taken:,.0f}" if taken == taken else f"> {ran:,}" for taken, ran in pairs)


def _in_words(rows: pl.DataFrame) -> str:
    """How far promises are off, by means over seeds at the better of the two rates.

    A run that did not get there counts as ended there, so that its batch is off by at least so much.
    """
    taken, missed = pl.col("taken").fill_nan(pl.col("ran")), pl.col("taken").is_nan().any()
    means = rows.group_by("task", "line", "share", maintain_order=True).agg(
        (taken.mean() / pl.col("promised").first()).alias("factor"), missed.alias("missed")
    )
    best = means.sort("factor").group_by("task", "line").first()
    off = np.exp(np.sqrt(np.mean(np.log(best["factor"].to_numpy()) ** 2)))
    sure = best.filter(~pl.col("missed"))["factor"].to_numpy()
    near = int((np.abs(np.log(sure)) <= math.log(1.5)).sum())
    rest = f"; {len(best) - len(sure)} had runs that did not get there" if len(sure) < len(best) else ""
    return f"{len(best)} batches, means over seeds at the better rate: {near} within 1.5{rest}. Rms factor {off:.2f}."


if __name__ == "__main__":
    main()
