"""``fedbatch plan privacy=... [OVERRIDE...]``: noise, batch and rounds for a target, before anything is trained."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fedbatch.api import plan
from fedbatch.cli.arguments import Arguments, positive
from fedbatch.cli.proposal import proposal, refuse_other
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


def _parser() -> Arguments:
    parser = Arguments("plan")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as of a run")
    parser.add_argument("--norm", type=positive("0.5"), help="length of a contribution, for the sampling noise")
    parser.add_argument("--run", help="a run folder, whose noise scale gives the sampling noise")
    parser.add_argument("--folder", default=".", help="where plan.png and plan.yaml go")
    return parser
