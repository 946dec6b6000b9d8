"""The table at the end of a sweep: runs by what sets them apart, and those that have not finished."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from rich.table import Column, Table
from rich.text import Text

from fedbatch.core.scores import in_words, number, score_of
from fedbatch.core.visible import visible
from fedbatch.results.choices import in_line, read_choices
from fedbatch.results.folder import summary_of
from fedbatch.results.status import state

SEED = "seed"


def sweep_table(folder: Path) -> Table | None:
    """A line for each choice but the seed: runs, mean and deviation of the score over them; None for a single run.

    The best mean has a mark. Runs that have not finished are counted, and are in no mean.
    """
    runs = {file.parent: read_choices(file.parent) for file in sorted(folder.glob("*/summary.json"))}
    if len(runs) < 2:
        return None
    scores = {score_of(summary_of(run)) for run in runs}
    keys = [key for key in dict.fromkeys(key for own in runs.values() for key in own) if key != SEED]
    lines: dict[tuple[str, ...], list[Path]] = {}
    for run, own in runs.items():
        lines.setdefault(tuple(own.get(key, "") for key in keys), []).append(run)
    named = in_words(*scores) if len(scores) == 1 else "score"
    heads = (Column(visible(name), overflow="fold") for name in short(keys))
    table = Table(*heads, "runs", named, "+-", "", "unfinished")
    means = {line: mean(values) for line, group in lines.items() if (values := [*finished(group)])}
    for line, group in lines.items():
        values = list(finished(group))
        cells = (
            *line,
            str(len(group)),
            number(means[line]) if values else "",
            number(stdev(values)) if len(values) > 1 else "",
            "best mean" if len(scores) == 1 and len(means) > 1 and line == best(means, next(iter(runs))) else "",
            str(len(group) - len(values)) if len(values) < len(group) else "",
        )
        table.add_row(*(Text(visible(cell)) for cell in cells))
    return table


def short(keys: Sequence[str]) -> list[str]:
    """The last word of each dotted key, where that tells them apart.

    >>> short(["server_optimizer.lr", "seed"]), short(["a.lr", "b.lr"])
    (['lr', 'seed'], ['a.lr', 'b.lr'])
    """
    last = [key.rsplit(".", 1)[-1] for key in keys]
    return last if len(set(last)) == len(last) else list(keys)


def finished(runs: Iterable[Path]) -> Iterator[float]:
    """Scores of the runs that have finished with one."""
    for run in runs:
        summary = summary_of(run)
        value = summary.get(score_of(summary))
        if state(run) == "finished" and isinstance(value, int | float) and math.isfinite(value):
            yield float(value)


def best(means: Mapping[tuple[str, ...], float], any_run: Path) -> tuple[str, ...]:
    """The line whose mean is best."""
    choose = min if summary_of(any_run).get("score_better") == "lower" else max
    return choose(means, key=lambda line: means[line])


def unfinished_lines(folder: Path) -> Iterator[str]:
    """A line for each run of a sweep that has not finished: its choices, and why."""
    for file in sorted(folder.glob("*/summary.json")):
        if (kind := state(file.parent)) != "finished":
            why = summary_of(file.parent).get("error") or kind
            yield f"{visible(file.parent)} ({in_line(read_choices(file.parent))}): {visible(str(why))}"
