"""A plan for a terminal: a table, notes and one sentence of conclusion."""

import math
from collections.abc import Iterator, Sequence

from rich.table import Table

from fedbatch.privacy.planning import Row, measured_knee
from fedbatch.results.critical_table import size
from fedbatch.results.plan import Plan

LINES = 10
"""Batches that are shown."""


def plan_table(plan: Plan) -> Table:
    """A line for each batch: what the configured rounds need, and the noise of the mean for all numbers of rounds."""
    title = (
        f"epsilon {plan.target_epsilon:g} at delta {plan.delta:.2g}, N = {plan.units:,} {plan.unit}s, "
        f"T = {plan.rounds:,} rounds, clip norm C = {plan.clip_norm:g}"
    )
    table = Table(title=title, title_justify="left", caption_justify="left", pad_edge=False)
    for name in ("clients x each", "sigma, T", *_headings(plan), "examples", "sent"):
        table.add_column(name, justify="right", overflow="fold")
    scale = 10 ** max(0, math.floor(3 - math.log10(max(row.mean_noise for row in plan.grid))))
    for row in shown(plan):
        noises = (f"{scale * other.mean_noise:.3g}" for other in plan.others(row))
        sent = size(row.bytes_down + row.bytes_up)
        table.add_row(_name(plan, row), f"{row.noise_multiplier:.3g}", *noises, _count(row.examples), sent)
    times = f" x {scale:,}" if scale > 1 else ""
    table.caption = f"by rounds: noise of the mean, sigma C / B{times}; examples, sent: in T rounds"
    return table


def _headings(plan: Plan) -> list[str]:
    rounds = sorted({row.rounds for row in plan.grid})
    return [f"{count:,}{' = T' if count == plan.rounds else ''}" for count in rounds]


def _count(number: float) -> str:
    return f"{number:,.0f}" if number < 1e7 else f"{number:,.3g}"


def _name(plan: Plan, row: Row) -> str:
    marks = [word for word, marked in (("now", plan.configured), ("take", plan.choice)) if row == marked]
    each = "all" if row.client_batch_size is None else f"{row.client_batch_size:,}"
    return f"{f'({chr(44).join(marks)}) ' if marks else ''}{row.cohort_size:,} x {each}"


def shown(plan: Plan) -> list[Row]:
    """At most `LINES` batches for the configured rounds: those that the sentences name, and others spread evenly."""
    rows = [row for row in plan.here if len(plan.others(row)) == len({row.rounds for row in plan.grid})]
    named = [row for row in (rows[0], plan.configured, plan.choice, plan.largest, plan.balanced) if row in rows]
    others = [row for row in rows if row not in named]
    room = max(0, LINES - len({rows.index(row) for row in named}))
    kept = others if len(others) <= room else [others[i * len(others) // room] for i in range(room)]
    return [row for row in rows if row in named or row in kept]


def notes(plan: Plan) -> Iterator[str]:
    """What the numbers mean, a line each."""
    knee = measured_knee(plan.here)
    here = f"under 10 % from {knee.batch:,.0f} on" if knee != plan.largest else "10 % or more up to everything"
    yield f"Knee: in theory N sqrt(epsilon / T) = {plan.knee:,.0f} {plan.unit}s; here a doubling gains {here}."
    yield f"Sampling: {_sampling(plan)}"
    short, choice, largest = plan.shortest, plan.choice, plan.largest
    if short.rounds < plan.rounds:
        yield (
            f"{short.rounds:,} rounds instead of {plan.rounds:,}: {_change(short, choice)} noise of the mean, "
            f"{short.examples / choice.examples:.2g} x the examples."
        )
    if largest != choice:
        yield (
            f"Everything, {largest.batch:,.0f} {plan.unit}s: {_change(largest, choice)} noise of the mean, "
            f"{largest.examples / choice.examples:.3g} x the examples."
        )

    for caveat in plan.caveats:
        yield f"Note: {caveat}."
    least = largest.mean_noise / plan.clip_norm
    if least >= 1:
        other = "" if plan.unit == "example" else ", or protect examples (privacy=example_central)"
        yield (
            f"Warning: {plan.units:,} {plan.unit}s are too few for epsilon {plan.target_epsilon:g}: even with all of "
            f"them the noise of each coordinate of the mean is {least:.2g} clip norms, and no update is longer "
            f"than one. Take more {plan.unit}s, a larger epsilon or fewer rounds{other}."
        )


def _sampling(plan: Plan) -> str:
    where = f"with a spread of {plan.spread:.3g} ({plan.spread_is})"
    if plan.balanced is None:
        last = plan.largest
        above = last.mean_noise / last.sampling_noise(plan.spread, plan.size)
        return f"privacy noise is above sampling noise at every batch, {above:,.3g} x at the largest, {where}."
    below = [row for row in plan.here if row.mean_noise <= row.sampling_noise(plan.spread, plan.size)]
    end = (
        "on" if below[-1] == plan.largest else f"to {_clients(plan, below[-1])}"
    )  # where it is flat, sampling falls on
    return f"privacy noise is below sampling noise from {_clients(plan, plan.balanced)} {end}, {where}."


def _clients(plan: Plan, row: Row) -> str:
    clients = f"{row.cohort_size:,} clients"
    return clients if plan.unit == "client" else f"{row.batch:,.0f} {plan.unit}s ({clients})"


def _change(row: Row, other: Row) -> str:
    """How the noise of a row differs, in words."""
    percent = 100 * (row.mean_noise / other.mean_noise - 1)
    return f"{abs(percent):.0f} % {'less' if percent < 0 else 'more'}"


def conclusion(plan: Plan) -> str:
    """The choice and its reason, in one sentence."""
    row, now = plan.choice, plan.configured
    if plan.largest.mean_noise >= plan.clip_norm:
        return "No batch is proposed: all are too noisy, as the warning says."
    each = "all their examples" if row.client_batch_size is None else f"{row.client_batch_size:,} examples each"
    size_ = f"{row.cohort_size:,} clients with {each}"
    what = f"noise multiplier {row.noise_multiplier:.3g} and noise of the mean {row.mean_noise:.3g}"
    if row == now:
        return f"Keep {size_}: {what}; {plan.reason}."
    if row.batch > now.batch:
        return f"Take {size_}: {what}, {_change(row, now)} than now; {plan.reason}."
    saved = 1 - row.examples / now.examples
    return f"Take {size_}: {what}, only {_change(row, now)} than now, for {100 * saved:.0f} % fewer examples."


def reasons(plan: Plan) -> Sequence[str]:
    """The conclusion and the notes, for the comment of a config."""
    return [conclusion(plan), *notes(plan)]
