"""Does one run predict the critical batch size, and with it the cost of every other batch? Second form.

    python -m simulations.critical_batch_size             all tasks; about an hour of one core
    python -m simulations.critical_batch_size --quick     digits and a quadratic, under a minute

Goals are losses of a tuned run at the largest batch of a task. For every batch and goal the learning rate is walked by
factors of two, and S(B) = S_min + E_min / B fitted to two seeds. Beside B_crit = E_min / S_min stands what `fedbatch
critical` says of the runs at the smallest batch alone. A second truth branches off one of these runs. Finished runs
are skipped. Writes docs/results/critical_batch_size.parquet (a row a goal), the same with _runs, _windows and
_branches, tables as .md, and two figures.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import polars as pl

from simulations import quadratic
from simulations.critical_batch_size_report import markdown
from simulations.critical_branching import BRANCHED, branches
from simulations.critical_figures import save_costs, save_figure
from simulations.critical_reading import costs, points, rows
from simulations.critical_runs import launched, measured
from simulations.critical_tasks import EASY, OPTIMIZERS, Task, tasks
from simulations.study import command

SUMMARY = __doc__.splitlines()[0]


def main(arguments: list[str] | None = None) -> None:
    """Tune, run, read, write tables and figures."""
    with command("critical_batch_size", SUMMARY, "one easy task and a quadratic", arguments, True) as study:
        chosen = [EASY] if study.quick else [task for optimizer in OPTIMIZERS for task in tasks(optimizer)]
        cells = [partial(of_task, task, study.runs) for task in chosen]
        cells += [partial(of_quadratic, name) for name in (["SGD"] if study.quick else quadratic.MOMENTUM)]
        found = study.rows(cells)
        runs, windows = (
            pl.DataFrame([row for cell in found for row in cell[name]], infer_schema_length=None)
            for name in ("runs", "windows")
        )
        told = points(runs, windows)
        moments = [task for task in chosen if task.name in BRANCHED[task.optimizer] or study.quick]
        branched = pl.DataFrame(study.rows([partial(branches, task, study.runs, runs, windows) for task in moments]))
        for rows_, suffix in ((told, ""), (runs, "_runs"), (windows, "_windows"), (branched, "_branches")):
            study.save(rows_, suffix)
        spent = costs(runs, told)
        study.tell(markdown(told, spent, branched))
        save_figure(told, study.figure())
        save_costs(spent, study.figure("_costs"))


def of_task(task: Task, folder: Path) -> list[dict[str, Any]]:
    """Runs and windows of a task."""
    goals, found = measured(partial(launched, task, folder), task.batches, task.rate, task.steps)
    runs, windows = rows(task, goals, found)
    return [{"runs": runs, "windows": windows}]


def of_quadratic(optimizer: str) -> list[dict[str, Any]]:
    """The same for a quadratic, which needs no fedbatch."""
    task = quadratic.task(optimizer)
    goals, found = measured(
        partial(quadratic.launched, quadratic.MOMENTUM[optimizer]), task.batches, task.rate, task.steps
    )
    runs, windows = rows(task, goals, found)
    return [{"runs": runs, "windows": windows}]


if __name__ == "__main__":
    main()
