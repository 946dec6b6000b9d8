"""How many clients a round can each federated method use? FedSGD, local steps, DiLoCo's Nesterov.

    make data && python -m simulations.critical_cohort    ten minutes of CPU time; resumable
    python -m simulations.critical_cohort --quick         FedSGD and local SGD on digits, one seed, under a minute

Every client uses 16 examples a round, whatever the method: in one gradient, or in four local steps. The server's rate
is walked for each method, partition and cohort with a seed of its own; a local rate is walked before, at one cohort.
M_crit is fitted to the rounds to a loss, and told by `fedbatch critical` from the runs of the second smallest cohort
alone, in clients. Writes docs/results/critical_cohort.parquet and .md, and docs/figures/critical_cohort.png.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import polars as pl

from fedbatch.core.errors import ConfigError
from fedbatch.results.critical import critical
from simulations.critical_cohort_report import markdown, save_figure
from simulations.goals import Curve, curve, steps_to
from simulations.steps_to_goal import EVALUATIONS, TUNING_SEED, measure
from simulations.study import Study, command
from simulations.study_runs import run_once
from simulations.tuning import tuned

SUMMARY = __doc__.splitlines()[0]
BATCH, STEPS = 16, 4
"""Examples of a client and round, and steps in which local methods take them."""
OUTER = ("server_optimizer=sgd", "server_optimizer.momentum=0.9", "server_optimizer.nesterov=true")
LOCAL = (f"client_work.steps={STEPS}", f"client_batch_size={BATCH // STEPS}", "executor=vmap")
INNER = ("client_work.keep=false", "client_work.weight_decay=0")


@dataclass(frozen=True)
class Method:
    """A federated method.

    Attributes:
        overrides: of fedbatch.
        rate: of the server, where the walk begins at the smallest cohort.
        local: rate of local steps, where its walk begins; None without local steps.
        guess: (rounds, clients): S_min and M_crit, roughly; they say how often to evaluate and when to give up.
    """

    overrides: tuple[str, ...]
    rate: float
    local: float | None
    guess: tuple[int, int]


BOTH = ("IID", "Dirichlet 0.3")
METHODS = {
    "FedSGD": Method(
        ("client_work=fedsgd", f"client_batch_size={BATCH}", "executor=fused", "server_optimizer=sgd"),
        0.1,
        None,
        (60, 16),
    ),
    "local SGD": Method(
        ("client_work=local_sgd", "client_work.epochs=null", *LOCAL, "server_optimizer=sgd"), 1.0, 0.1, (20, 40)
    ),
    "SGD and Nesterov": Method(
        ("client_work=local_sgd", "client_work.epochs=null", *LOCAL, *OUTER), 0.4, 0.1, (20, 40)
    ),
    "AdamW and Nesterov": Method(("client_work=diloco", *INNER, *LOCAL, *OUTER), 0.4, 0.004, (25, 40)),
}
PARTITIONS = {
    "IID": (),
    "Dirichlet 0.3": ("partitioner=dirichlet", "partitioner.alpha=0.3", "partitioner.self_balancing=true"),
}


@dataclass(frozen=True)
class Form:
    """One form of the study.

    Attributes:
        common: overrides of all its runs.
        population: clients in all.
        examples: of all of them.
        cohorts: rising by equal factors; the second tells, the third is where local rates are walked.
        methods: names in `METHODS`, each with its names in `PARTITIONS`.
        goal: loss on the training set.
        seeds: that are reported.
    """

    common: tuple[str, ...]
    population: int
    examples: int
    cohorts: tuple[int, ...]
    methods: dict[str, tuple[str, ...]]
    goal: float
    seeds: tuple[int, ...]


SHARED = (
    *("dataset=digits", "controller=fixed", "checkpoint_every_rounds=0", "report=none", "partitioner.seed=0"),
    *("training_set_examples=2000", "target_metric=training_set_loss", "learning_rate.rule=constant", "model.width=32"),
    "weighting=uniform",
)
FULL = Form(
    (*SHARED, "dataset._target_=simulations.critical_data.fashion", "+dataset.pool=2"),
    1000,
    60_000,
    (4, 16, 64, 256),
    {"FedSGD": BOTH, "local SGD": BOTH, "SGD and Nesterov": BOTH, "AdamW and Nesterov": ("IID",)},
    0.6,
    (0, 1, 2),
)
QUICK = Form(SHARED, 40, 1437, (2, 8, 32), {"FedSGD": BOTH, "local SGD": BOTH}, 0.8, (0,))


def main(arguments: list[str] | None = None) -> None:
    """Tune, run, fit, write the table and the figure."""
    with command("critical_cohort", SUMMARY, "two methods on digits, one seed", arguments, True, True) as study:
        form = QUICK if study.quick else FULL
        chosen = [(name, split) for split in PARTITIONS for name, splits in form.methods.items() if split in splits]
        cells = [partial(of_method, study, form, *cell) for cell in chosen]
        rows = pl.DataFrame(study.rows(cells), infer_schema_length=None)
        study.save(rows)
        study.tell(markdown(rows))
        save_figure(rows, study.figure())


def of_method(study: Study, form: Form, name: str, split: str) -> list[dict[str, Any]]:
    """Rounds to the goal by cohort and seed for one method and partition, and what single runs say of M_crit."""
    method = METHODS[name]
    local = None if method.local is None else local_rate(study, form, method, split)

    def run(cohort: int, rate: float, seed: int) -> Curve | None:
        return curve(run_once(study.runs, overrides(study, form, method, split, local, cohort, rate, seed)))

    found = measure(run, form.cohorts, (form.goal,), method.rate, population_of(form, method), form.seeds)
    rows = []
    for point in found:
        cohort = int(point["batch"])
        row = {"method": name, "partition": split, "cohort": cohort, "local_lr": local, "goal": form.goal}
        row |= {key: point[key] for key in ("rate", "seed", "tuning", "steps")} | {"told": math.nan}
        row |= {"population": population_of(form, method), "examples": BATCH * cohort * point["steps"]}
        if cohort == form.cohorts[1] and not point["tuning"]:
            options = overrides(study, form, method, split, local, cohort, point["rate"], point["seed"])
            row["told"] = told(study, options, form.goal)
        rows.append(row)
    return rows


def local_rate(study: Study, form: Form, method: Method, split: str) -> float:
    """The rate of local steps that needs the fewest rounds at the third cohort, the server's at its first."""
    assert method.local is not None

    def rounds(rate: float) -> float:
        options = overrides(study, form, method, split, rate, form.cohorts[2], method.rate, TUNING_SEED)
        found = curve(run_once(study.runs, options))
        if found is None:
            return math.nan
        steps = steps_to(form.goal, found)
        return steps if steps == steps else 1e9 * (1 + float(found.losses[-1]))

    return tuned(rounds, method.local, runs=6)


def population_of(form: Form, method: Method) -> float:
    """Of what a cohort is drawn without replacement: clients, or with FedSGD batches, of which a client has several."""
    return float(form.population if method.local is not None else form.examples / BATCH)


def overrides(
    study: Study, form: Form, method: Method, split: str, local: float | None, cohort: int, rate: float, seed: int
) -> list[str]:
    """The command line of a run."""
    rounds, clients = method.guess
    expected = rounds * (1 + clients / cohort)
    return [
        *form.common,
        *method.overrides,
        *PARTITIONS[split],
        *(f"population={form.population}", f"cohort_size={cohort}", f"target_value={0.9 * form.goal:.4g}"),
        *(f"rounds={int(4 * expected)}", f"evaluate_every_rounds={max(1, int(expected / EVALUATIONS))}"),
        *(f"server_optimizer.lr={rate:.4g}", f"seed={seed}", f"device={study.device}"),
        *([] if local is None else [f"client_work.lr={local:.4g}"]),
    ]


def told(study: Study, options: Sequence[str], goal: float) -> float:
    """M_crit as `fedbatch critical` tells it of one run, in clients; NaN where it cannot."""
    try:
        said = critical(run_once(study.runs, list(options)), [goal])
    except ConfigError:
        return math.nan
    return said.goals[0].b_crit / (1 if said.unit == "clients" else said.client_batch)


if __name__ == "__main__":
    main()
