"""The rows of a run as what its critical batch size is read from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbatch.batch.loss_curve import LossCurve, jumps, loss_curve
from fedbatch.batch.noiseless import Rounds
from fedbatch.batch.trust import Evidence
from fedbatch.core.errors import ConfigError
from fedbatch.results.record import FILE, Row, each_row

Floats = npt.NDArray[np.float64]
NEEDED = ("round_trace", "round_grad_sq", "noise_scale_unit", "global_batch", "cohort_size", "bytes_up", "bytes_down")
COLUMNS = ("round", "rounds", "phase", "train_loss", "test_loss", "training_set_loss", "b_within", "m_drift", *NEEDED)
WORDS = ("phase", "noise_scale_unit")
PRIVATE = ("noise_scale_dp", "epsilon", "epsilon_rdp")
ALIKE = ("IidPartitioner", "LinearPartitioner", "SquarePartitioner", "ExponentialPartitioner", "SizePartitioner")
"""Partitions whose clients draw from one distribution."""
NEVER_FALLS = "never falls"
EVALUATIONS = 12
"""Of the training set, from which on its loss is taken; below, that of the rounds' own examples."""


@dataclass(frozen=True)
class Record:
    """A run's rounds in numbers.

    Attributes:
        rounds: estimates and batches of every round from the first.
        unit: of the batches, "examples" or "clients".
        loss: name of the column that ``losses`` are of.
        loss_rounds: (n,) rounds done before each loss.
        losses: (n,) of training examples.
        start: loss before the first step; NaN where it is not known.
        fixed_losses: (m,) of examples that are the same in every evaluation.
        cohort: clients of a round in the first phase.
        client_batch: examples of each.
        bytes_up: from a client in a round.
        bytes_down: to a client in a round.
        is_fixed: whether there is one phase.
        clients: median of the clients in a round.
        within: (T,) running average of the sampling noise in examples; NaN where halves were not measured.
        drift: (T,) the same of the drift in clients.
    """

    rounds: Rounds
    unit: str
    loss: str
    loss_rounds: Floats
    losses: Floats
    start: float
    fixed_losses: Floats
    cohort: float
    client_batch: float
    bytes_up: float
    bytes_down: float
    is_fixed: bool
    clients: float
    within: Floats
    drift: Floats


def read(folder: Path) -> Record:
    """The record of a run.

    Raises:
        ConfigError: there is none, or it does not say what is needed.
    """
    rows: list[Row] = []
    for row in each_row(folder / FILE):
        if any(name in row for name in PRIVATE):
            raise ConfigError(
                f"{folder}: a private run: gradients are clipped, privacy noise falls as 1 / batch^2, and the sums do "
                "not hold; run the config with privacy=none, or read its column noise_scale_dp"
            )
        if missing := [name for name in NEEDED if name not in row]:
            raise ConfigError(
                f"{folder}: its record has no {' and no '.join(missing)}; run it again with this fedbatch"
            )
        rows.append({name: row.get(name, np.nan) for name in COLUMNS})
    if len(rows) < 4:
        raise ConfigError(f"{folder}: {len(rows)} rounds in its record; it needs 4 at least")
    if not sum(row["global_batch"] for row in rows) > 0:
        raise ConfigError(f"{folder}: no examples in its rounds")
    units = sorted({row["noise_scale_unit"] for row in rows})
    if len(units) > 1:
        raise ConfigError(f"{folder}: phases with and without local steps, whose batches have no common unit")
    return _record(rows, units[0])


def _record(rows: list[Row], unit: str) -> Record:
    columns = {name: np.array([row[name] for row in rows], dtype=float) for name in COLUMNS if name not in WORDS}
    names = [row["phase"] for row in rows]
    first = np.array([name == names[0] for name in names])
    number, cohorts, examples = columns["round"].astype(np.int64), columns["cohort_size"], columns["global_batch"]
    evaluated = np.isfinite(columns["training_set_loss"])
    loss = _loss_column(columns)
    clients = float(cohorts.sum())
    return Record(
        rounds=_rounds(columns, number, np.unique(names, return_inverse=True)[1], unit),
        unit=unit,
        loss=loss,
        loss_rounds=columns["rounds"] - (loss == "train_loss"),  # the gradients' own, so before the step
        losses=columns[loss],
        start=float(columns["train_loss"][0]),
        fixed_losses=columns["training_set_loss" if evaluated.any() else "test_loss"],
        cohort=float(cohorts[first].mean()),
        client_batch=float(examples[first].sum() / cohorts[first].sum()),
        bytes_up=float(columns["bytes_up"][-1]) / clients,
        bytes_down=float(columns["bytes_down"][-1]) / clients,
        is_fixed=bool(first.all()) and float(np.ptp(cohorts)) <= 0.5 * float(cohorts.mean()),
        clients=float(np.median(cohorts)),
        within=columns["b_within"],
        drift=columns["m_drift"],
    )


def _loss_column(columns: Mapping[str, Floats]) -> str:
    known = {name: int(np.isfinite(columns[name]).sum()) for name in ("training_set_loss", "train_loss", "test_loss")}
    if known["training_set_loss"] >= EVALUATIONS or not known["train_loss"]:
        return "training_set_loss" if known["training_set_loss"] else "test_loss"
    return "train_loss"


def _rounds(columns: Mapping[str, Floats], number: npt.NDArray[np.int64], phases: Any, unit: str) -> Rounds:
    """In order and without gaps: a round that the record lost has the batch of the one before it, and no estimate."""
    count = int(number.max()) + 1
    order = np.argsort(number, kind="stable")
    owner = order[np.maximum(np.searchsorted(number[order], np.arange(count), side="right") - 1, 0)]
    lost = np.isin(np.arange(count), number, invert=True)
    batches = columns["global_batch" if unit == "examples" else "cohort_size"]
    batches = np.where(batches > 0, batches, 1.0)  # nobody was drawn: a step that costs nothing, and moves nothing
    trace, grad_sq = (np.where(lost, np.nan, columns[name][owner]) for name in ("round_trace", "round_grad_sq"))
    return Rounds(trace, grad_sq, batches[owner], phases[owner])


def evidence(record: Record, curve: LossCurve, config: Mapping[str, Any], rounds: float) -> Evidence:
    """What the run says of itself up to a round, for `fedbatch.batch.trust.doubts`."""
    noise = np.maximum(record.within[: int(rounds) + 1], 0.0) / record.client_batch
    drift = np.maximum(record.drift[: int(rounds) + 1], 0.0)
    known = np.isfinite(noise) & np.isfinite(drift) & (noise + drift > 0)
    partitioner = config["partitioner"]
    alike = partitioner.get("kind") in ALIKE or partitioner.get("_target_", "").endswith("drawn")
    start = record.start if np.isfinite(record.start) else float(curve.losses[0])
    way = max(curve.way, start - float(curve.losses.min()))
    return Evidence(
        clients=record.clients,
        climb=curve.climb / way,
        jump=jumps(record.fixed_losses) / way,
        drift=float(np.median(drift[known] / (drift + noise)[known])) if known.any() else None,
        mixed=record.unit == "examples" and not alike,
        everybody=record.cohort >= config["population"],
    )


def beyond_the_law(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Reasons for doubt in how the server steps: the sums are those of plain SGD on the mean."""
    optimizer = config["server_optimizer"]
    name, momentum = optimizer.get("_target_", "").rpartition(".")[2], optimizer.get("momentum") or 0
    found = []
    if name != "SGD" or momentum:
        what = f"momentum {momentum:g}" if name == "SGD" else f"server_optimizer {name}"
        found.append(f"{what}: the law is that of plain SGD; larger batches may gain up to 7 x more (docs/critical.md)")
    if config.get("aggregator"):
        rule = config["aggregator"].get("_target_", "").rpartition(".")[2]
        found.append(f"aggregator {rule}: the noise was measured of the mean, which the server does not use")
    if config.get("compression"):
        found.append("compression: its noise is in the steps (compression_variance), and not in the trace of the law")
    return tuple(found)


def curve_of(folder: Path, record: Record) -> LossCurve:
    """The smoothed loss of a run.

    Raises:
        ConfigError: it has too few values, or never falls.
    """
    try:
        curve = loss_curve(record.loss_rounds, record.losses)
    except ValueError as error:
        raise ConfigError(f"{folder}: {record.loss}: {error}") from error
    if curve.losses.argmin() == 0:
        raise ConfigError(f"{folder}: {record.loss} {NEVER_FALLS}; lower server_optimizer.lr or run more rounds")
    return curve
