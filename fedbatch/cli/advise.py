"""``fedbatch advise [OVERRIDE...]``: a short probe, the batch to take for each cost, and a config that takes it."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fedbatch.advising.advise import advise, checked_costs
from fedbatch.cli.arguments import Arguments, positive
from fedbatch.cli.proposal import proposal, refuse_other
from fedbatch.core.errors import ConfigError
from fedbatch.core.visible import visible
from fedbatch.results.advice import Advice, Choice
from fedbatch.results.advice_table import advice_table, caption, comment, whys
from fedbatch.results.costs import NAMES, OWN

CONFIG = "advice.yaml"


def main(arguments: Sequence[str]) -> None:
    """Probe, print the advice and write the proposed config.

    Raises:
        ConfigError: an argument is wrong, there is nothing to advise, or ``advice.yaml`` is a file of the user's own.
        RunFailedError: the probe cannot go on.
    """
    given = _parser().parse_intermixed_args(list(arguments))  # options may stand between overrides
    costs, folder = _costs(given.cost), Path(given.folder)
    wanted = given.for_ or next(reversed(costs), OWN)
    if wanted not in (*NAMES, *costs):
        raise ConfigError(f"--for: there is no cost {wanted!r}; choose from {', '.join((*NAMES, *costs))}")
    refuse_other(folder / CONFIG, "advise")
    advice = advise(*given.overrides, minutes=given.minutes, costs=costs)
    row = _row(advice, wanted)
    console = Console()
    console.print(advice_table(advice))
    for line in (*whys(advice), *caption(advice), *advice.notes):
        console.print(visible(line), highlight=False, markup=False, soft_wrap=True)
    for doubt in advice.doubts:
        console.print(f"warning: {visible(doubt)}", style="bold", highlight=False, markup=False, soft_wrap=True)
    where = _of_private(given.overrides) if advice.private else _written(advice, row, folder)
    console.print(visible(where), highlight=False, markup=False, soft_wrap=True)


def _written(advice: Advice, row: Choice, folder: Path) -> str:
    """Write the config of a row, and say how to run it."""
    folder.mkdir(parents=True, exist_ok=True)
    text = proposal("advise", "advice", advice.proposed(row), [visible(line) for line in comment(advice, row)])
    (folder / CONFIG).write_text(text)
    at = shlex.quote(str(folder))
    return f"{folder / CONFIG} takes the line {row.cost.name}; run it: fedbatch --config-dir={at} --config-name=advice"


def _of_private(overrides: Sequence[str]) -> str:
    """Where the noise of a private run is priced. A config without its privacy is not written."""
    return (
        "All this is without privacy, whose noise falls as 1 / batch^2 and asks for larger batches; what they are, and "
        f"a config: fedbatch plan {shlex.join(overrides)}"
    )


def _row(advice: Advice, wanted: str) -> Choice:
    for row in advice.rows:
        if row.cost.name == wanted:
            return row
    raise ConfigError(f"--for: the time_model of the config cannot be built for {wanted!r}; give another cost")


def _costs(words: Sequence[str]) -> dict[str, tuple[float, ...]]:
    costs: dict[str, tuple[float, ...]] = {}
    for word in words:
        name, _, numbers = word.partition("=")
        if name in costs:
            raise ConfigError(f"--cost: {name} is given twice; give each cost a name of its own")
        try:
            costs[name] = tuple(float(number) for number in numbers.split(","))
        except ValueError:
            raise ConfigError(
                f"--cost: give NAME=ROUND,CLIENT,EXAMPLE,BYTE in numbers, e.g. cloud=1,0.1,0,1e-6 (got {word!r})"
            ) from None
    checked_costs(costs)
    return costs


def _parser() -> Arguments:
    parser = Arguments("advise")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as of a run")
    parser.add_argument("--minutes", type=positive("2"), default=2.0, help="that the probe may take")
    parser.add_argument("--cost", action="append", default=[], help="of your own: NAME=ROUND,CLIENT,EXAMPLE,BYTE")
    parser.add_argument("--for", dest="for_", metavar="NAME", help="the cost that advice.yaml is for")
    parser.add_argument("--folder", default=".", help="where advice.yaml goes")
    return parser
