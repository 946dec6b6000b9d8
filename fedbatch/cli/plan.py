"""``fedbatch plan privacy=... [OVERRIDE...]``: noise, batch and rounds for a target, before anything is trained."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from fedbatch.api import plan
from fedbatch.cli.proposal import proposal, refuse_other
from fedbatch.core.errors import ConfigError
from fedbatch.core.visible import visible
from fedbatch.results.plan_figure import save_plan_figure
from fedbatch.results.plan_table import conclusion, notes, plan_table, reasons

FIGURE, CONFIG = "plan.png", "plan.yaml"


def main(arguments: Sequence[str]) -> None:
    """Print the plan, draw it, and write the proposed config.

    Raises:
        ConfigError: there is nothing to plan, an argument is wrong, or ``plan.yaml`` is a file of the user's own.
    """
    given = _parser().parse_intermixed_args(list(arguments))  # options may stand between overrides
    folder = Path(given.folder)
    refuse_other(folder / CONFIG, "plan")
    found = plan(*given.overrides, norm=given.norm, measured_in=given.run)
    console = Console()
    console.print(plan_table(found))
    for line in (*notes(found), conclusion(found)):
        console.print(visible(line), highlight=False, markup=False, soft_wrap=True)
    folder.mkdir(parents=True, exist_ok=True)
    save_plan_figure(found, folder / FIGURE)
    (folder / CONFIG).write_text(proposal("plan", "plan", found.overrides, reasons(found)))
    where = f"picture: {folder / FIGURE}; to run it: fedbatch --config-dir={folder} --config-name=plan"
    console.print(visible(where), highlight=False, markup=False, soft_wrap=True)


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as everywhere."""
        raise ConfigError(f"{message}; see fedbatch plan --help")


def _parser() -> ArgumentParser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as of a run")
    parser.add_argument("--norm", type=_length, help="length of a contribution, for the sampling noise")
    parser.add_argument("--run", help="a run folder, whose noise scale gives the sampling noise")
    parser.add_argument("--folder", default=".", help="where plan.png and plan.yaml go")
    return parser


def _length(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ArgumentTypeError(f"give a positive length, e.g. 0.5 (got {text!r})")
    return number
