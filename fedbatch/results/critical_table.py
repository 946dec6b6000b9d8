"""Tables and sentences on the critical batch size of a run, for a terminal."""

import math
from collections.abc import Iterator, Sequence

from rich.markup import escape
from rich.table import Table

from fedbatch.batch.critical import Bounds
from fedbatch.core.visible import visible
from fedbatch.results.critical import Critical, Prediction
from fedbatch.results.critical_points import Point


def ladder(found: Critical) -> list[float]:
    """Batches to show where none are asked for: from a quarter of the run's own on, by factors of four, four of them.

    For a run that is counted in clients they are those of cohorts that double.
    """
    if found.unit == "clients":
        cohorts = sorted({max(round(found.cohort * 2.0**i), 1) for i in range(-2, 4)})
        return [cohort * found.client_batch for cohort in cohorts if cohort <= found.population]
    return [found.batch * 4.0**i for i in range(-1, 3) if found.batch * 4.0**i >= 1]


def goals_table(found: Critical) -> Table:
    """A line for each loss: the run's own rounds, and S_min, E_min and B_crit with their intervals."""
    title = f"{escape(visible(found.run))}: {found.loss}, B_crit in {found.unit}"
    table = Table(title=title, title_justify="left")
    for name in ("loss", "rounds", "least rounds", f"least {found.unit}", "B_crit"):
        table.add_column(name, justify="right", overflow="fold")
    for goal in found.goals:
        table.add_row(
            f"{goal.loss:.4g}",
            f"{goal.steps:,.0f}",
            f"{goal.s_min:,.0f} ({_between(goal.s_min_interval)})",
            f"{goal.e_min:,.0f} ({_between(goal.e_min_interval)})",
            f"{goal.b_crit:,.0f} ({_between(goal.b_crit_interval)})",
        )
    return table


def costs_table(found: Critical, batches: Sequence[float]) -> Table:
    """What each batch needs to get to the lowest loss; a line for more clients, and one for more examples of each."""
    title = f"to {found.loss} {found.goals[-1].loss:.4g}, at the rate that suits each batch"
    table = Table(title=title, title_justify="left")
    for name in ("batch", "clients x each", "rounds", "examples", "sent", "seconds"):
        table.add_column(name, justify="right", overflow="fold")
    for batch in batches:
        own = " (run)" if is_own(found, batch) else ""
        for way in ways(found, batch):
            table.add_row(
                f"{way.batch:,.0f}{own}",
                f"{way.cohort:,.4g} x {way.client_batch:,.4g}{'' if is_possible(found, way) else ', not there'}",
                f"{way.rounds:,.0f} ({_between(way.rounds_interval)})",
                f"{way.examples:,.0f}",
                size(way.bytes),
                "" if math.isnan(way.seconds) else f"{way.seconds:,.3g}",
            )
    return table


def ways(found: Critical, batch: float) -> list[Prediction]:
    """The same batch by more or fewer clients, and by more or fewer examples of each, as far as there are any.

    Clients, and examples of each where their number is chosen, are whole, so that a batch is met as closely as they
    can. No client has more examples than the largest. A batch that neither makes is one of more clients than there are.
    """
    if math.isclose(batch, found.batch, rel_tol=1e-6):
        return [found.predict(batch)]
    clients = max(round(batch / found.client_batch), 1)
    found_ways = [found.predict(clients * found.client_batch, clients)]
    if not math.isnan(found.drift):
        cohort, each = max(round(found.cohort), 1), max(round(batch / found.cohort), 1)
        found_ways.append(found.predict(cohort * each, cohort))
    return [way for way in found_ways if is_possible(found, way)] or found_ways[:1]


def is_possible(found: Critical, way: Prediction) -> bool:
    """Whether there are as many clients, and one with as many examples; a client has one at least."""
    most_each = 1.001 * max(found.largest_client, found.client_batch)
    return 0.99 < way.cohort <= found.population and 0.99 < way.client_batch <= most_each


def points_table(found: Critical, points: Sequence[Point]) -> Table:
    """Rounds that runs of each batch needed at the best of their settings, and what the first run says."""
    title = "measured / predicted rounds; measured: mean over seeds, at the best of the settings"
    table = Table(title=title, title_justify="left")
    for name in ("batch", "clients", "runs", *(f"loss {goal.loss:.4g}" for goal in found.goals)):
        table.add_column(name, justify="right")
    for point in points:
        pairs = zip(point.rounds, point.predicted, strict=True)
        cells = (
            f"{'not by all' if math.isnan(was) else f'{was:,.0f}'} / {'-' if math.isnan(told) else f'{told:,.0f}'}"
            for was, told in pairs
        )
        table.add_row(f"{point.batch:,.0f}", f"{point.cohort:,.0f}", str(point.runs), *cells)
    return table


def sentences(found: Critical) -> Iterator[str]:
    """What the numbers mean, in plain words."""
    goal = found.goals[-1]
    here = found.predict(found.batch)
    if math.isfinite(goal.b_crit) and goal.b_crit > 0:
        yield (
            f"At {goal.b_crit:,.0f} {found.unit} a round, both rounds and examples are twice their least (B_crit, "
            f"{_between(goal.b_crit_interval)}): a smaller batch saves examples, a larger one rounds."
        )
    other = found.predict(_telling(found))
    what = f"A batch of {other.batch:,.0f}" if found.unit == "examples" else f"A cohort of {other.cohort:,.0f} clients"
    own = f"{found.batch:,.0f}" if found.unit == "examples" else f"{found.cohort:,.0f}"
    rounds, examples = here.rounds / other.rounds, other.examples / here.examples
    if rounds >= 1:
        yield f"{what} needs about {rounds:.1f} x fewer rounds than {own} for {examples:.1f} x the examples."
    else:
        yield f"{what} needs about {1 / rounds:.1f} x the rounds of {own} for {1 / examples:.1f} x fewer examples."
    if found.unit == "examples":
        root = math.sqrt(other.batch / found.batch)
        yield (
            f"Its learning rate: what suits {found.batch:,.0f}, times {rounds:.2g} with SGD or {root:.2g} with Adam "
            "and its kin."
        )
    if found.is_fixed:
        yield "The line of the run's own batch is what the run took; only the other lines are predictions."
    yield "Brackets are 90 % intervals by this run alone. Another seed, and the error of the law, come on top."


def agreement(found: Critical, points: Sequence[Point]) -> Iterator[str]:
    """How far other batches are from what was predicted of them, in one sentence; none where nothing can be told."""
    pairs = [
        pair
        for point in points
        if not is_own(found, point.batch)
        for pair in zip(point.rounds, point.predicted, strict=True)
        if not any(map(math.isnan, pair))
    ]
    if pairs:
        logs = [abs(math.log(was / told)) for was, told in pairs]
        rms = math.exp(math.sqrt(sum(log**2 for log in logs) / len(logs)))
        yield (
            f"Measured and predicted rounds of other batches differ by a factor of {rms:.2f} (root mean square of "
            f"{len(logs)}), {math.exp(max(logs)):.2f} at most."
        )


def is_own(found: Critical, batch: float) -> bool:
    """Whether this is the batch of the whole run."""
    return found.is_fixed and math.isclose(batch, found.batch, rel_tol=1e-6)


def _telling(found: Critical) -> float:
    """The batch nearest to B_crit among the run's own times powers of two, but not the run's own."""
    own = found.batch if found.unit == "examples" else found.cohort
    target = min(max(found.goals[-1].b_crit / own, 2.0**-6), 2.0**6)
    power = round(math.log2(target)) or (1 if target >= 1 else -1)
    batch = found.batch * 2.0**power
    return batch if power > 0 or own * 2.0**power >= 1 else 4 * found.batch


def size(number: float) -> str:
    """Bytes for people.

    >>> size(1_234_000), size(5.4e9)
    ('1.23 MB', '5.4 GB')
    """
    return f"{number / 1e9:,.3g} GB" if number >= 1e9 else f"{number / 1e6:,.3g} MB"


def _between(bounds: Bounds) -> str:
    return f"{bounds[0]:,.0f}-{bounds[1]:,.0f}"
