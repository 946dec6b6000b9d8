"""The critical batch size of a run, read from its folder: what it says of every other batch and cohort."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fedbatch.batch.critical import Bounds
from fedbatch.batch.one_run import ToLoss, to_losses
from fedbatch.batch.trust import doubts
from fedbatch.build import build
from fedbatch.errors import ConfigError
from fedbatch.results.critical_rows import Record, curve_of, evidence, read
from fedbatch.results.folder import config_values

SHARES = (0.2, 0.4, 0.7, 1.0)
"""Of the rounds, at which a run's loss becomes a goal where none is given."""
DRAWS = 16
"""Cohorts whose simulated seconds are averaged."""


@dataclass(frozen=True)
class Prediction:
    """What a batch would need to get to a loss, at the learning rate that suits it, with 90 % intervals.

    Attributes:
        batch: examples of a round.
        cohort: clients of a round; need not be whole.
        client_batch: examples of a client and round.
        rounds: to the loss.
        examples: of all clients together.
        bytes: sent and received.
        seconds: by the run's own time model; NaN where that cannot be had.
        rounds_interval: bounds of ``rounds``.
        examples_interval: bounds of ``examples``.
    """

    batch: float
    cohort: float
    client_batch: float
    rounds: float
    examples: float
    bytes: float
    seconds: float
    rounds_interval: Bounds
    examples_interval: Bounds


@dataclass(frozen=True)
class Critical:
    """What one run says of the batch size.

    Attributes:
        run: its folder.
        unit: "examples"; or "clients" after local steps and where client drift dominates. It is the unit of ``e_min``
            and ``b_crit`` in ``goals``.
        loss: the column that the losses are of.
        batch: examples of a round in the first phase.
        cohort: clients of a round in the first phase.
        client_batch: ``batch / cohort``.
        population: clients in all.
        is_fixed: whether the run has one phase; its own cost is then what the sums say, by definition.
        goals: the losses asked for, the highest first, with S_min, E_min and B_crit to each.
        doubts: reasons not to trust the numbers up to the lowest of them, with what to do; best empty.
        bytes_per_client: sent and received in a round.
    """

    run: Path
    unit: str
    loss: str
    batch: float
    cohort: float
    client_batch: float
    population: int
    is_fixed: bool
    goals: tuple[ToLoss, ...]
    doubts: tuple[str, ...]
    bytes_per_client: float
    _seconds: Callable[[float, float], float] = field(repr=False, compare=False)

    def predict(
        self, batch: float | None = None, cohort: float | None = None, goal: ToLoss | None = None
    ) -> Prediction:
        """The cost of another batch or cohort.

        Args:
            batch: examples of a round; None for ``cohort`` times the run's client batch.
            cohort: clients of a round; None for ``batch`` over the run's client batch. With both, clients take
                ``batch / cohort`` examples each.
            goal: one of ``goals``; None for the lowest loss.

        Raises:
            ValueError: neither is given, or one is not positive; or clients would take other numbers of examples in a
                run that is counted in clients, which says nothing of that.
        """
        if batch is None and cohort is None:
            raise ValueError("give a batch, a cohort or both")
        cohort = cohort if cohort is not None else (batch or 0.0) / self.client_batch
        batch = batch if batch is not None else cohort * self.client_batch
        if not (batch > 0 and cohort > 0):
            raise ValueError(f"batch and cohort must be positive (got {batch:g} and {cohort:g})")
        each = batch / cohort
        if self.unit == "clients" and abs(each / self.client_batch - 1) > 1e-9:
            raise ValueError("this run is counted in clients: it says nothing of other examples a client")
        cost = (goal or self.goals[-1]).at(batch if self.unit == "examples" else cohort)
        low, high = cost.steps_interval
        return Prediction(
            batch=batch,
            cohort=cohort,
            client_batch=each,
            rounds=cost.steps,
            examples=cost.steps * batch,
            bytes=cost.steps * cohort * self.bytes_per_client,
            seconds=cost.steps * self._seconds(cohort, each),
            rounds_interval=cost.steps_interval,
            examples_interval=(low * batch, high * batch),
        )


def critical(run: str | Path, losses: Sequence[float] | None = None) -> Critical:
    """What the record of one run says of the rounds, examples, bytes and seconds that other batches would need.

    The theory is in `fedbatch.batch.one_run`, and how far it is off in docs/critical.md. Read ``doubts`` first.

    Args:
        run: a run folder, of a run that is done or under way.
        losses: to be reached; None for those after 20, 40, 70 and 100 % of the rounds.

    Raises:
        ConfigError: not a run; a private run; a record without estimates of the noise, or whose loss does not fall; or
            a loss that the run did not pass. It is a ValueError.

    >>> found = critical("runs/first")                                # doctest: +SKIP
    >>> found.goals[-1].b_crit, found.predict(batch=256).rounds       # doctest: +SKIP
    """
    folder = Path(run)
    config, record = config_values(folder), read(folder)
    curve = curve_of(folder, record)
    falling = curve.falling()
    if losses is None:
        losses = sorted({round_up(falling.after(share * falling.steps[-1])) for share in SHARES}, reverse=True)
    try:
        goals = to_losses(record.rounds, curve, losses := sorted(losses, reverse=True))
    except ValueError as error:
        raise ConfigError(f"{folder}: {error}") from error
    if missed := [loss for loss in losses if loss not in [goal.loss for goal in goals]]:
        raise ConfigError(
            f"{folder}: {record.loss} never got to {missed[0]:g}; it fell from {falling.losses[0]:.3g} to "
            f"{falling.losses[-1]:.3g}"
        )
    known = evidence(record, curve, config, goals[-1].steps)
    in_clients = record.unit == "examples" and known.drifts
    if in_clients:
        goals = [goal.in_units_of(record.client_batch) for goal in goals]
    more = (f"{config['aggregator']['_target_']}: the sums are those of the mean",) if config.get("aggregator") else ()
    return Critical(
        run=folder,
        unit="clients" if in_clients else record.unit,
        loss=record.loss,
        batch=record.cohort * record.client_batch,
        cohort=record.cohort,
        client_batch=record.client_batch,
        population=config["population"],
        is_fixed=record.is_fixed,
        goals=tuple(goals),
        doubts=doubts(goals[-1], known) + more,
        bytes_per_client=record.bytes_down + record.bytes_up,
        _seconds=_seconds(config, record),
    )


def round_up(loss: float) -> float:
    """Three digits, not below ``loss``.

    >>> round_up(0.44721), round_up(0.447)
    (0.448, 0.447)
    """
    near = float(f"{loss:.3g}")
    return near if near >= loss else float(f"{near + 10.0 ** (np.floor(np.log10(abs(loss))) - 2):.3g}")


def _seconds(config: Mapping[str, Any], record: Record) -> Callable[[float, float], float]:
    try:
        model = build("time_model", config["time_model"])
    except (ConfigError, KeyError):  # one's own, and not where it was
        return lambda cohort, each: float("nan")
    return partial(_round_seconds, model, config["seed"], config["population"], record)


def _round_seconds(model: Any, seed: int, population: int, record: Record, cohort: float, each: float) -> float:
    """Mean over cohorts drawn anew, of as many clients as there are at most."""
    rng, count = np.random.default_rng(seed), min(max(round(cohort), 1), population)
    examples = np.full(count, max(round(each), 1), np.int64)
    cohorts = (np.sort(rng.choice(population, count, replace=False)).astype(np.int64) for _ in range(DRAWS))
    up, down = round(record.bytes_up), round(record.bytes_down)
    return float(np.mean([model.round_seconds(seed, clients, examples, down, up) for clients in cohorts]))
