"""The critical batch size of a run, read from its folder: what it says of every other batch and cohort."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedbatch.batch.critical import Bounds
from fedbatch.batch.loss_curve import LossCurve
from fedbatch.batch.one_run import ToLoss, to_losses
from fedbatch.batch.trust import doubts
from fedbatch.core.errors import ConfigError
from fedbatch.results.critical_rows import Record, beyond_the_law, curve_of, evidence, read
from fedbatch.results.folder import config_values, summary_of
from fedbatch.results.own import trusted_in
from fedbatch.results.round_seconds import round_seconds

SHARES = (0.2, 0.4, 0.7, 1.0)
"""Of the rounds, at which a run's loss becomes a goal where none is given."""


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
        drift: share of client drift in the noise of a client's gradient, in [0, 1], which more examples of the same
            clients do not average; 0 where it was not measured; NaN after local steps, which say nothing of that.
        is_fixed: whether the run has one phase; its own cost is then what the sums say, by definition.
        goals: the losses asked for, the highest first, with S_min, E_min and B_crit to each.
        doubts: reasons not to trust the numbers up to the lowest of them, with what to do; best empty.
        bytes_per_client: sent and received in a round.
        largest_client: training examples of the client that has most; infinity where the run does not say it.
    """

    run: Path
    unit: str
    loss: str
    batch: float
    cohort: float
    client_batch: float
    population: int
    drift: float
    is_fixed: bool
    goals: tuple[ToLoss, ...]
    doubts: tuple[str, ...]
    bytes_per_client: float
    _seconds: Callable[[float, float], float] = field(repr=False, compare=False)
    largest_client: float = math.inf

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
            ValueError: neither is given, or one is not positive; or clients would take other numbers of examples
                after local steps.
        """
        if batch is None and cohort is None:
            raise ValueError("give a batch, a cohort or both")
        cohort = cohort if cohort is not None else (batch or 0.0) / self.client_batch
        batch = batch if batch is not None else cohort * self.client_batch
        if not (batch > 0 and cohort > 0):
            raise ValueError(f"batch and cohort must be positive (got {batch:g} and {cohort:g})")
        each = batch / cohort
        noise = 1.0  # of a client, for its noise in the run
        if abs(each / self.client_batch - 1) > 1e-9:
            noise = (1 - self.drift) * self.client_batch / each + self.drift
        if noise != noise:
            raise ValueError("local steps: this run says nothing of other numbers of examples a client")
        clients = cohort / noise  # of the run's own noise, that average as much
        cost = (goal or self.goals[-1]).at(clients * (self.client_batch if self.unit == "examples" else 1.0))
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


def critical(run: str | Path, losses: Sequence[float] | None = None, trust: Sequence[str] = ()) -> Critical:
    """What the record of one run says of the rounds, examples, bytes and seconds that other batches would need.

    The theory is in `fedbatch.batch.one_run`, and how far it is off in docs/critical.md. Read ``doubts`` first.

    Args:
        run: a run folder, of a run that is done or under way.
        losses: to be reached; None for those after 20, 40, 70 and 100 % of the rounds.
        trust: modules whose code the run's time model may name.

    Raises:
        ConfigError: not a run; a private run; a record without estimates of the noise, or whose loss does not fall; or
            a loss that the run did not pass. It is a ValueError.

    >>> found = critical("runs/first")                                # doctest: +SKIP
    >>> found.goals[-1].b_crit, found.predict(batch=256).rounds       # doctest: +SKIP
    """
    folder = Path(run)
    config, record = config_values(folder), read(folder)
    curve = curve_of(folder, record)
    goals = _goals(folder, record, curve, losses)
    known = evidence(record, curve, config, goals[-1].steps)
    in_clients = record.unit == "examples" and known.drifts
    if in_clients:
        goals = [goal.in_units_of(record.client_batch) for goal in goals]
    return Critical(
        run=folder,
        unit="clients" if in_clients else record.unit,
        loss=record.loss,
        batch=record.cohort * record.client_batch,
        cohort=record.cohort,
        client_batch=record.client_batch,
        population=config["population"],
        drift=float("nan") if record.unit == "clients" else 0.0 if known.everybody else known.drift or 0.0,
        is_fixed=record.is_fixed,
        goals=tuple(goals),
        doubts=doubts(goals[-1], known) + beyond_the_law(config),
        bytes_per_client=record.bytes_down + record.bytes_up,
        _seconds=round_seconds(config, record, trusted_in(Path(run), trust)),
        largest_client=summary_of(folder).get("largest_client") or math.inf,
    )


def _goals(folder: Path, record: Record, curve: LossCurve, losses: Sequence[float] | None) -> list[ToLoss]:
    falling = curve.falling()
    asked = losses or {round_up(falling.after(share * falling.steps[-1])) for share in SHARES}
    try:
        goals = to_losses(record.rounds, curve, sorted(asked, reverse=True))
    except ValueError as error:
        raise ConfigError(f"{folder}: {error}") from error
    passed = {goal.loss for goal in goals}
    if missed := [loss for loss in asked if loss not in passed and (losses or not goals)]:
        raise ConfigError(
            f"{folder}: {record.loss} does not pass {missed[0]:g}; it falls from {falling.losses[0]:.4g} to "
            f"{falling.losses[-1]:.4g}"
        )
    return goals


def round_up(loss: float) -> float:
    """Three digits, not below ``loss``.

    >>> round_up(0.44721), round_up(0.447)
    (0.448, 0.447)
    """
    near = float(f"{loss:.3g}")
    return near if near >= loss else float(f"{near + 10.0 ** (np.floor(np.log10(abs(loss))) - 2):.3g}")
