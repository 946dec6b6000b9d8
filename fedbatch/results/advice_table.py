"""Advice on the batch as a table and sentences, for a terminal and for the comment of a config."""

import math
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fedbatch.core.visible import visible
from fedbatch.results.advice import Advice, Choice
from fedbatch.results.costs import digits

COLUMNS = ("cost", "clients x each", "lr", "rounds", "it costs", "twice")


def advice_table(advice: Advice) -> Table:
    """A line for each cost: what to take, what it needs, and what twice the batch would change."""
    goal = advice.found.goals[-1]
    title = f"to {advice.found.loss} {goal.loss:.4g}, which the probe passed in {goal.steps:,.0f} rounds"
    table = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0)
    )  # all fits 80 columns
    for name in COLUMNS:
        table.add_column(name, justify="right", overflow="fold")
    for row in advice.rows:
        table.add_row(*_cells(advice, row))
    return table


def _cells(advice: Advice, row: Choice) -> Sequence[str]:
    low, high = row.rounds_interval
    rate = f"{row.lr_factor:.2f} x" if advice.lr is None else f"{advice.lr * row.lr_factor:.3g}"
    return (
        escape(row.cost.name),
        f"{row.cohort_size:,} x {_each(advice, row)} = {row.batch:,.0f}",
        rate,
        f"{row.rounds:,.0f} ({low:,.0f}-{high:,.0f})",
        row.cost.shown(row.amount),
        "" if math.isnan(row.fewer_rounds) else f"/{row.fewer_rounds:.2f} x{row.more_cost:.2f}",
    )


def _each(advice: Advice, row: Choice) -> str:
    """As configured; what they really take where the config does not say, which is all that they have."""
    size = row.client_batch_size
    is_told = size is not None and not math.isnan(advice.found.drift)
    return f"{size:,}" if is_told else digits(row.batch / row.cohort_size)


def line_of(advice: Advice, row: Choice) -> str:
    """A row in one sentence, with its reason."""
    rate = "" if advice.lr is None else f", server_optimizer.lr={advice.lr * row.lr_factor:.3g}"
    return (
        f"{row.cost.name}: {row.batch:,.0f} examples a round from {row.cohort_size:,} clients{rate}; "
        f"{row.rounds:,.0f} rounds, {row.cost.shown(row.amount)}; {row.why}."
    )


def whys(advice: Advice) -> Iterator[str]:
    """The reason of each row; rows with the same words share a line."""
    names: dict[str, list[str]] = {}
    for row in advice.rows:
        names.setdefault(row.why, []).append(row.cost.name)
    for why, same in names.items():
        yield f"{', '.join(same)}: {why}."


def caption(advice: Advice) -> Iterator[str]:
    """How to read the table."""
    for row in advice.rows:
        if row.cost.meaning:
            yield f"{row.cost.name}: {row.cost.meaning}."
    yield rule_sentence(advice)
    yield "twice: what doubling the batch buys there, rounds / a factor for the cost x another."
    yield "Brackets are 90 % intervals; costs have the same in proportion. Nothing is said of lower losses."


def rule_sentence(advice: Advice) -> str:
    """How the learning rates follow from that of the probe."""
    found = advice.found
    own = "the probe's" if advice.lr is None else f"the probe's server_optimizer.lr={advice.lr:g}"
    most = f", {advice.cap:g} at most after local steps (learning_rate.max_factor)" if advice.cap < math.inf else ""
    if advice.rule == "gain":
        noise = found.goals[-1].b_crit
        size = f"B0 = {found.batch if found.unit == 'examples' else found.cohort:,.0f}"
        law = f"(1 + N/B0) / (1 + N/B), {size} and N = {noise:,.0f} {found.unit} (gain, as for SGD)"
    else:
        law = f"sqrt(B/B0), B0 = {found.batch:,.0f} examples (as for Adam and its kin)"
    return f"lr: {own} times {law}{most}."


def comment(advice: Advice, row: Choice) -> list[str]:
    """Why a config was proposed, and what other costs would ask for."""
    goal = advice.found.goals[-1]
    return [
        f"For the cost {line_of(advice, row)}",
        f"The rounds below are {row.rounds_with_margin / row.rounds:.2f} x those predicted, to {advice.found.loss} "
        f"{goal.loss:.4g}, which the probe {visible(advice.run)} passed.",
        rule_sentence(advice),
        *advice.notes,
        *(f"Doubt: {doubt}" for doubt in advice.doubts),
        "Other costs:",
        *(f"  {line_of(advice, other)}" for other in advice.rows if other is not row),
    ]
