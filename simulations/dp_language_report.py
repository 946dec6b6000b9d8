"""Tables of dp_language.py, from its rows alone. Accuracies are per cent of masked characters."""

import math

import numpy as np
import numpy.typing as npt
import polars as pl

from simulations.dp_language_data import GROUPS
from simulations.tables import above, interval, spread, table, verdict

FAR = 5.0
"""Points of accuracy that a mega-batch has to gain to be far better."""
CLAIMED = 0.86
"""Share of the fixed batch's examples with which a rising batch has to get as far."""
KEPT = {"constant": "noise multiplier", "proportional": "noise of the mean"}
"""What a rising batch keeps constant, by `privacy.noise_schedule`."""
Floats = npt.NDArray[np.float64]
Triple = tuple[float, float, float]


def reported(rows: pl.DataFrame) -> pl.DataFrame:
    """Runs of seeds that chose no rate; accuracy in per cent."""
    return rows.filter(~pl.col("tuning")).with_columns(accuracy=100 * pl.col("accuracy"))


def ends(rows: pl.DataFrame) -> pl.DataFrame:
    """The last row of each run."""
    return rows.filter(pl.col("step") == pl.col("rounds"))


def at(rows: pl.DataFrame, **values: float | str) -> pl.DataFrame:
    """Rows with these values: of runs without decay and with a fixed batch, unless told otherwise."""
    chosen = {"decay": 0.0, "rising": "", **values}
    return rows.filter(*(pl.col(name) == value for name, value in chosen.items()))


def steps_of(rows: pl.DataFrame) -> int:
    """T, the steps of runs whose batches are compared."""
    return int(at(rows, batch=sorted(rows["batch"].unique())[0])["rounds"][0])


def paired(more: pl.DataFrame, less: pl.DataFrame, column: str = "accuracy") -> Floats:
    """Differences of a column by seed, of seeds that both have; a row each."""
    both = more.join(less, on="seed").sort("seed")
    return (both[column] - both[f"{column}_right"]).to_numpy()


def gained(more: pl.DataFrame, less: pl.DataFrame) -> pl.DataFrame:
    """Differences of accuracy by seed, as the accuracy of that seed."""
    seeds = more.join(less, on="seed", how="semi").sort("seed")["seed"]
    return pl.DataFrame({"seed": seeds, "accuracy": paired(more, less)})


def shown(bounds: Triple, form: str = ".1f") -> str:
    """A mean and its 90 % interval."""
    mean, low, high = bounds
    return f"{mean:{form}} ({low:{form}} to {high:{form}})" if math.isfinite(low) else f"{mean:{form}}"


def limit(epsilon: float) -> str:
    """An epsilon in words."""
    return "none" if math.isinf(epsilon) else f"{epsilon:g}"


def crossing(examples: Floats, accuracy: Floats, goal: float) -> float:
    """Examples at which a curve first gets to a goal, between points by a straight line; NaN if it does not.

    >>> crossing(np.array([10.0, 20.0]), np.array([0.0, 4.0]), 1.0), crossing(np.array([10.0]), np.array([0.0]), 1.0)
    (12.5, nan)
    """
    there = np.flatnonzero(accuracy >= goal)
    if not len(there):
        return math.nan
    last = there[0]
    if not last:
        return float(examples[0])
    return float(np.interp(goal, accuracy[last - 1 : last + 1], examples[last - 1 : last + 1]))


def needed(rows: pl.DataFrame, batch: float, epsilon: float, noise: str) -> pl.DataFrame:
    """By seed: examples of a rising and of the fixed batch to the fixed one's mean final accuracy.

    In units of all examples of a fixed run; NaN where a run does not get there.
    """
    steps = steps_of(rows)
    fixed = at(rows, batch=batch, epsilon=epsilon, rounds=steps)
    rising = at(rows, batch=batch, epsilon=epsilon, rising=noise)
    goal = float(ends(fixed)["accuracy"].mean())  # type: ignore[arg-type]
    found = []
    for (seed,), own in rising.group_by("seed", maintain_order=True):
        row = {"seed": seed}
        for name, run in (("rising", own), ("fixed", fixed.filter(pl.col("seed") == seed))):
            run = run.sort("step")
            row[name] = crossing(run["examples"].to_numpy(), run["accuracy"].to_numpy(), goal) / (batch * steps)
        found.append(row)
    return pl.DataFrame(found, schema={"seed": pl.Int64, "rising": pl.Float64, "fixed": pl.Float64})


def ratio(found: pl.DataFrame) -> Triple:
    """Examples of rising over those of fixed batches; who does not get there counts with all that it saw, 1."""
    return interval((found["rising"].fill_nan(1.0) / found["fixed"].fill_nan(1.0)).to_numpy())


def best_decay(rows: pl.DataFrame) -> float:
    """The decay above 0 whose best tuning run was the most accurate; 0 where none was tried."""
    tried = ends(rows).filter(pl.col("tuning") & (pl.col("decay") > 0)).sort("accuracy", descending=True)
    return float(tried["decay"][0]) if tried.height else 0.0


def markdown(rows: pl.DataFrame) -> str:
    """The three verdicts, and a table for each claim."""
    own = reported(rows)
    first, *_ = (e for e in own["epsilon"].unique(maintain_order=True) if math.isfinite(e))
    parts = (batches(own), rising(own), decays(own, first, best_decay(rows)))
    verdicts = "\n".join(f"- {told}" for told, _ in parts)
    head = "Accuracies are per cent of masked characters; intervals are 90 % by Student's t over seeds, paired."
    walked = ends(rows.filter("tuning")).height
    pairs = equal_rates(rows, first)
    end = f"{ends(own).height} reported runs, and {walked} that chose rates."
    return "\n\n".join([head, verdicts, *(text.strip() for _, text in parts), pairs.strip(), end]) + "\n"


def batches(own: pl.DataFrame) -> tuple[str, str]:
    """Claim 1: accuracy by batch at equal epsilon and steps, and at equal examples."""
    steps = steps_of(own)
    sizes = sorted(own["batch"].unique())
    lines, claims = [], []
    for epsilon in own["epsilon"].unique(maintain_order=True):
        cells = [ends(at(own, batch=size, epsilon=epsilon, rounds=steps)) for size in sizes]
        whole, last = interval(paired(cells[-1], cells[0])), interval(paired(cells[-1], cells[-2]))
        free = [ends(at(own, batch=size, epsilon=math.inf, rounds=steps)) for size in (sizes[-1], sizes[0])]
        beyond = interval(paired(gained(cells[-1], cells[0]), gained(*free)))
        if math.isfinite(epsilon):
            claims.append(f"at epsilon {limit(epsilon)} {verdict(above(whole, FAR))}")
        rates = ", ".join(f"{cell['rate'][0]:g}" for cell in cells)
        seeds = ", ".join(str(cell.height) for cell in cells)
        accuracies = [spread(cell["accuracy"], ".1f") for cell in cells]
        more = shown(beyond) if math.isfinite(epsilon) else ""
        lines.append([limit(epsilon), *accuracies, shown(whole), more, shown(last), rates, seeds])
    heads = [f"batch {size:,}" for size in sizes]
    gain = [f"{sizes[0]:,} to {sizes[-1]:,}", "less that without privacy", f"{sizes[-2]:,} to {sizes[-1]:,}"]
    text = table(["epsilon", *heads, *gain, "rates", "seeds"], lines)
    told = f"At equal epsilon and steps the whole population is {FAR:g} points better than a {sizes[-1] // sizes[0]}th"
    title = f"Batches at equal epsilon and {steps} steps:"
    return f"{told}: {'; '.join(claims)}.", f"{title}\n\n{text}\n{equal_examples(own)}"


def equal_examples(own: pl.DataFrame) -> str:
    """The same runs read where they saw as much as the second smallest batch, and runs made for equal examples."""
    steps, sizes = steps_of(own), sorted(own["batch"].unique())
    lines = []
    for epsilon in own["epsilon"].unique(maintain_order=True):
        line = [limit(epsilon)]
        for size in sizes:
            cell = at(own, batch=size, epsilon=epsilon, rounds=steps)
            read = [_read(run, steps * sizes[1]) for _, run in cell.group_by("seed", maintain_order=True)]
            line.append(spread(pl.Series(read).drop_nans(), ".1f"))
        lines.append(line)
    title = f"The same runs after {steps * sizes[1]:,} examples:"
    text = f"{title}\n\n{table(['epsilon', *(f'batch {size:,}' for size in sizes)], lines)}"
    epsilon, examples = own["epsilon"][0], steps * sizes[-2]
    made = ends(at(own, epsilon=epsilon)).filter(pl.col("batch") * pl.col("rounds") == examples)
    middle = made.filter(pl.col("batch") == sizes[-2])
    lines = []
    for (batch, rounds), cell in made.sort("batch").group_by("batch", "rounds", maintain_order=True):
        gain = "" if batch == sizes[-2] else shown(interval(paired(cell, middle)))
        lines.append([f"{batch:,}", f"{rounds:,}", spread(cell["accuracy"], ".1f"), gain, str(cell.height)])
    heads = ["batch", "steps", "accuracy", f"less that of {sizes[-2]:,}", "seeds"]
    title = f"Runs made for {examples:,} examples, each of them with epsilon {limit(epsilon)} at its end:"
    return f"{text}\n{title}\n\n{table(heads, lines)}"


def _read(run: pl.DataFrame, examples: float) -> float:
    """Accuracy of a run after so many examples, between points by a straight line; NaN outside them."""
    run = run.sort("step")
    seen = run["examples"].to_numpy()
    return float(np.interp(examples, seen, run["accuracy"].to_numpy(), math.nan, math.nan))


def rising(own: pl.DataFrame) -> tuple[str, str]:
    """Claim 2: examples of rising batches to the accuracy of fixed ones."""
    lines: list[list[str]] = []
    claims: dict[str, list[bool | None]] = {}
    cells = own.filter(pl.col("rising") != "").select("batch", "epsilon", "rising").unique(maintain_order=True)
    for batch, epsilon, noise in cells.iter_rows():
        found = needed(own, batch, epsilon, noise)
        bounds = ratio(found)
        saves = above(bounds, CLAIMED)
        claims.setdefault(KEPT[noise], []).append(None if saves is None else not saves)
        late = [f"{found[name].is_nan().sum()} of {found.height}" for name in ("rising", "fixed")]
        both = [ends(at(own, batch=batch, epsilon=epsilon, rising=kind)) for kind in ("", noise)]
        both[0] = both[0].filter(pl.col("rounds") == steps_of(own))
        accuracies = [spread(cell["accuracy"], ".1f") for cell in both]
        means = [shown(interval(found[name].fill_nan(1.0).to_numpy()), ".2f") for name in ("rising", "fixed")]
        line = [f"{batch:,}", limit(epsilon), KEPT[noise], *accuracies, shown(interval(paired(both[1], both[0])))]
        lines.append([*line, *means, shown(bounds, ".2f"), *late])
    heads = [
        "last batch",
        "epsilon",
        "constant",
        "fixed",
        "rising",
        "rising less fixed",
        "examples, rising",
        "examples, fixed",
    ]
    text = table([*heads, "ratio", "rising, never", "fixed, never"], lines)
    answers = "; ".join(f"with constant {name} {verdict(*claim)}" for name, claim in claims.items())
    told = f"A rising batch gets as far with {100 * (1 - CLAIMED):.0f} % fewer examples: {answers}."
    title = "Rising batches, of as many examples as fixed ones; examples to the fixed batch's final accuracy, of all:"
    return told, f"{title}\n\n{text}"


def decays(own: pl.DataFrame, epsilon: float, best: float) -> tuple[str, str]:
    """Claim 3: accuracy and lengths of weights by decay; lengths are of the end over the start."""
    batch, steps = sorted(own["batch"].unique())[-2], steps_of(own)
    cell = own.filter(pl.col("batch") == batch, pl.col("rounds") == steps, pl.col("rising") == "")
    free = ends(cell.filter(pl.col("epsilon").is_infinite()))
    private = ends(cell.filter(pl.col("epsilon") == epsilon)).sort("decay")
    base = private.filter(pl.col("decay") == 0)
    lines = []
    for name, group in (("none", free), (limit(epsilon), private)):
        for (decay,), runs in group.group_by("decay", maintain_order=True):
            gain = shown(interval(paired(runs, base))) if decay else ""
            lengths = [spread(runs[part], ".1f") for part in GROUPS]
            line = [name, f"{decay:g}", f"{runs['rate'][0]:g}", spread(runs["accuracy"], ".1f"), gain]
            lines.append([*line, spread(runs["loss"], ".2f"), *lengths, str(runs.height)])
    told = f"Some weight decay gains accuracy: {verdict(gains(private, best))} (decay {best:g}, by another seed). "
    large = max(private["decay"])
    told += f"The largest one does: {verdict(gains(private, large))} (decay {large:g})."
    heads = ["epsilon", "decay", "rate", "accuracy", "less that of 0", "loss"]
    text = table([*heads, "length: stream", "norms", "rest", "seeds"], lines)
    return told, f"Weight decay at a batch of {batch:,}:\n\n{text}"


def gains(private: pl.DataFrame, decay: float) -> bool | None:
    """Whether runs with a decay are more accurate than those without; None where it cannot be told."""
    without = private.filter(pl.col("decay") == 0)
    return above(interval(paired(private.filter(pl.col("decay") == decay), without)), 0.0)


def equal_rates(rows: pl.DataFrame, epsilon: float) -> str:
    """Lengths with and without noise at equal rates, of the runs that chose rates."""
    tried = ends(rows).filter(pl.col("tuning") & (pl.col("decay") == 0))
    private, free = tried.filter(pl.col("epsilon") == epsilon), tried.filter(pl.col("epsilon").is_infinite())
    both = private.join(free, on=("batch", "rate")).sort("batch", "rate")
    parts = [f"{part}{side}" for part in GROUPS for side in ("", "_right")]
    lines = [[f"{run['batch']:,}", f"{run['rate']:g}", *(f"{run[p]:.1f}" for p in parts)] for run in both.to_dicts()]
    heads = [f"{part}, {kind}" for part in GROUPS for kind in (f"epsilon {limit(epsilon)}", "none")]
    return f"Lengths at equal rates, one seed:\n\n{table(['batch', 'rate', *heads], lines)}"
