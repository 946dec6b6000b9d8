"""What a plan before a private run says: the grid, and the few rows of it that a decision needs."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedbatch.core.errors import ConfigError
from fedbatch.privacy.planning import Question, Row, balanced, knee, measured_knee, rows_of
from fedbatch.results.record import FILE, each_row


@dataclass(frozen=True)
class Plan:
    """What a private run would need, and what it would get for it.

    Attributes:
        unit: what is protected, "client" or "example"; batches and N are counted in it.
        units: N, how many there are.
        target_epsilon, delta: of the guarantee.
        clip_norm: C.
        size: d, coordinates of an update.
        rounds: T, configured.
        grid: every batch for every number of rounds.
        configured: the batch of the config, as the other rows for T rounds.
        choice: the batch that is proposed: at the measured knee, where a doubling lowers the noise by under 10 %; or a
            smaller one, not below the configured, whose privacy noise is known to be below its sampling noise.
        reason: of the choice, in words.
        shortest: the proposed batch for a quarter of the rounds.
        largest: everything, for T rounds.
        knee: the batch ``N sqrt(epsilon / T)``, the knee in theory.
        balanced: the smallest batch whose privacy noise is not above its sampling noise; None if there is none.
        spread: of a unit's contribution around the mean of all (RMS length), by which sampling noise is known.
        spread_is: where that comes from, in words.
        overrides: of the command line, for the proposed run.
        caveats: what the config has and the plan leaves out; best empty.
    """

    unit: str
    units: int
    target_epsilon: float
    delta: float
    clip_norm: float
    size: int
    rounds: int
    grid: tuple[Row, ...] = field(repr=False)
    configured: Row
    choice: Row
    reason: str
    shortest: Row
    largest: Row
    knee: float
    balanced: Row | None
    spread: float
    spread_is: str
    overrides: tuple[str, ...]
    caveats: tuple[str, ...] = ()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The grid as plain values, a row each; see `fedbatch.privacy.planning.Row`. Polars and pandas take it."""
        return [{**asdict(row), "epsilon": self.target_epsilon, "delta": self.delta} for row in self.grid]

    @property
    def here(self) -> list[Row]:
        """The rows for the configured rounds, by batch."""
        return [row for row in self.grid if row.rounds == self.rounds]

    def others(self, row: Row) -> list[Row]:
        """The rows of the same batch, by rounds."""
        return [other for other in self.grid if other.has_batch_of(row)]


def plan_of(question: Question, spread: float | None, spread_is: str, overrides: Sequence[str]) -> Plan:
    """Answer a question.

    Args:
        question: what is to be planned.
        spread: RMS distance of a unit's contribution from their mean; what is above the clip norm is clipped. None
            where it is not known, and at most the clip norm.
        spread_is: where it comes from.
        overrides: of the config, to which those of the proposed batch are added.
    """
    terms = question.terms
    grid = rows_of(question)
    here = [row for row in grid if row.rounds == question.rounds]
    clip_norm = terms.mechanism.clip_norm
    known = clip_norm if spread is None else min(spread, clip_norm)
    configured = next((row for row in here if row.has_batch_of(terms.first)), here[-1])
    quiet = balanced(here, known, question.size)
    choice, reason = measured_knee(here), "a further doubling gains under 10 %"
    if choice == here[-1]:
        reason = "that is everything"
    if spread is not None and quiet and max(quiet.batch, configured.batch) < choice.batch:
        choice = max(quiet, configured, key=lambda row: row.batch)
        reason = "its privacy noise is below its sampling noise"
    return Plan(
        unit=terms.mechanism.unit,
        units=terms.units,
        target_epsilon=question.target_epsilon,
        delta=question.delta,
        clip_norm=clip_norm,
        size=question.size,
        rounds=question.rounds,
        grid=tuple(grid),
        configured=configured,
        choice=choice,
        reason=reason,
        shortest=next(row for row in grid if row.has_batch_of(choice)),
        largest=here[-1],
        knee=knee(question, question.rounds),
        balanced=quiet,
        spread=known,
        spread_is=spread_is,
        overrides=(*overrides, *of_row(choice)),
        caveats=tuple(_caveats(question)),
    )


def _caveats(question: Question) -> Iterator[str]:
    if question.other_phases:
        yield "the controller changes batches; the plan is for one of them, the first, all the time (controller=fixed)"
    if getattr(question.terms.mechanism, "bands", 1) != 1:
        yield "noise that is correlated over rounds (privacy.bands) is not priced; the plan is for independent noise"


def of_row(row: Row) -> list[str]:
    """The overrides of a batch and a number of rounds."""
    each = "null" if row.client_batch_size is None else row.client_batch_size
    return [f"cohort_size={row.cohort_size}", f"client_batch_size={each}", f"rounds={row.rounds}"]


def measured_spread(folder: Path, unit: str) -> float:
    """The spread of one unit's contribution in the second half of a run, from the columns of its noise scale.

    A client's, where the run measured examples, is that of the mean of its batch, and client drift is left out.

    Raises:
        ConfigError: the run has no such columns, or measured clients where examples are asked for.
    """
    if not (folder / FILE).is_file():
        raise ConfigError(f"{folder}: no run in it; give a run's folder, or --norm, the length of a contribution")
    rows = [row for row in each_row(folder / FILE) if math.isfinite(row.get("round_trace") or math.nan)]
    rows = rows[len(rows) // 2 :]
    if not rows:
        raise ConfigError(f"{folder}: its record has no round_trace; give --norm, the length of a contribution")
    counted = str(rows[-1].get("noise_scale_unit"))
    if unit == "example" and counted != "examples":
        raise ConfigError(f"{folder}: its noise scale is of {counted}; give a run with client_work=fedsgd, or --norm")
    trace = sum(row["round_trace"] for row in rows) / len(rows)
    if unit == "client" and counted == "examples":
        trace *= sum(row["cohort_size"] for row in rows) / sum(row["global_batch"] for row in rows)
    if not trace > 0:
        raise ConfigError(f"{folder}: its estimates of round_trace are not above zero; give --norm")
    return math.sqrt(trace)
