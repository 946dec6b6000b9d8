"""From which query batch on does Cluster-Margin need the fewest labels, if from any?

    make data && python -m simulations.cluster_margin    about twenty minutes of CPU time; resumable
    python -m simulations.cluster_margin --quick         digits, three selectors, one seed, under a minute

After Citovsky et al. 2021. One owner has 20,000 images, each once or as noisy copies of fewer. A CNN is trained as the
labels come in, and its embeddings and probabilities are all that selectors see. Each query batch, from 0.1 to 10 % of
the pool, has a goal: the accuracy that random selection reaches with every seed. Compared are the labels that each
selector needs for it. Writes docs/results/cluster_margin.parquet and .md, and docs/figures/cluster_margin.png.
"""

import os
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import polars as pl

from simulations.cluster_margin_report import TIGHT, WIDE, markdown, save_figure
from simulations.study import Study, command
from simulations.study_runs import run_once, status

SUMMARY = __doc__.splitlines()[0]
SELECTORS = {
    "random": ("active=random",),
    "margin": ("active=margin",),
    "coreset": ("active=coreset",),
    "badge": ("active=badge",),
    WIDE: ("active=cluster_margin",),
    TIGHT: (
        *("active=cluster_margin", "active.selector.candidates_per_label=1.25"),
        "active.selector.mean_cluster_size=1.25",
    ),
}
"""Cluster-Margin as in the paper's large pools and as in its small ones."""
POOL = 20_000
IMAGES = "simulations.pooled_images.first_images"


@dataclass(frozen=True)
class Queries:
    """Labels a query, the number of queries, and the rounds before and after each."""

    labels: int
    queries: int
    rounds: int


@dataclass(frozen=True)
class Form:
    """One form of the study.

    Attributes:
        common: overrides of all its runs.
        pools: overrides by how many examples are copies of one original, on average.
        pool: examples in each.
        seed_labels: before the first query.
        queries: one entry a query batch.
        selectors: compared.
        seeds: of each cell.
    """

    common: tuple[str, ...]
    pools: dict[int, tuple[str, ...]]
    pool: int
    seed_labels: int
    queries: tuple[Queries, ...]
    selectors: tuple[str, ...]
    seeds: tuple[int, ...]


def copies(redundancy: int) -> tuple[str, ...]:
    """A pool of noisy copies of images whose numbers are Zipf."""
    base = (f"dataset.base._target_={IMAGES}", f"+dataset.base.examples={POOL}")
    return ("dataset=redundant", *base, f"dataset.originals={POOL // redundancy}", f"dataset.examples={POOL}")


COMMON = (
    *("controller=fixed", "executor=loop", "checkpoint_every_rounds=0", "report=none", "active.scope=local_only"),
    *("population=1", "cohort_size=1", "client_batch_size=64", "learning_rate.rule=constant"),
    *("averaging=ema", "averaging.decay=0.95", "server_optimizer=sgd", "server_optimizer.momentum=0.9"),
)
FULL = Form(
    common=(*COMMON, "model=cnn", "model.channels=8", "model.hidden=64", "server_optimizer.lr=0.03"),
    pools={
        1: ("dataset=digits", f"dataset._target_={IMAGES}", f"+dataset.examples={POOL}"),
        4: copies(4),
    },
    pool=POOL,
    seed_labels=200,
    queries=(Queries(20, 12, 60), Queries(100, 8, 60), Queries(500, 4, 120), Queries(2_000, 2, 300)),
    selectors=tuple(SELECTORS),
    seeds=(0, 1, 2, 3),
)
QUICK = Form(
    common=(*COMMON, "model=mlp", "model.width=32", "server_optimizer.lr=0.05"),
    pools={1: ("dataset=digits",)},
    pool=1_437,
    seed_labels=20,
    queries=(Queries(20, 3, 20), Queries(140, 1, 60)),
    selectors=("random", "margin", WIDE),
    seeds=(0,),
)


def main(arguments: list[str] | None = None) -> None:
    """Run, write the tables and the figure."""
    with command("cluster_margin", SUMMARY, "digits, three selectors, one seed", arguments, True, True) as study:
        form = QUICK if study.quick else FULL
        cells = [
            partial(measure, study, form, redundancy, queries, selector, seed)
            for seed in form.seeds
            for redundancy in form.pools
            for queries in form.queries
            for selector in form.selectors
        ]
        rows = pl.DataFrame(study.rows(cells), infer_schema_length=None)
        study.save(rows)
        study.tell(markdown(rows))
        save_figure(rows, study.figure())


def measure(
    study: Study, form: Form, redundancy: int, queries: Queries, selector: str, seed: int
) -> list[dict[str, Any]]:
    """A row for each stage of one run; its accuracy is that of the averaged model on test images."""
    budget = (f"active.seed_labels={form.seed_labels}", f"active.labels_per_query={queries.labels}")
    rounds = (f"active.queries={queries.queries}", f"rounds={queries.rounds * (queries.queries + 1)}")
    chosen = [*form.common, *form.pools[redundancy], *SELECTORS[selector], *budget, *rounds, f"device={study.device}"]
    folder = run_once(study.runs, [*chosen, f"evaluate_every_rounds={queries.rounds}", f"seed={seed}"])
    about = {"redundancy": redundancy, "pool": form.pool, "batch": queries.labels, "selector": selector, "seed": seed}
    about |= {"status": status(folder)}
    print(f"{redundancy} copies, {queries.labels} a query, {selector}, seed {seed}", file=sys.stderr, flush=True)
    if about["status"] != "finished":
        return [about]
    record = pl.read_parquet(folder / "rounds.parquet").filter(pl.col("test_accuracy").is_not_nan())
    accuracy = pl.col("average_test_accuracy").alias("test_accuracy")
    kept = record.select(accuracy, "labels_used", "class_balance", "query_seconds").iter_rows(named=True)
    return [about | {"stage": stage, **values} for stage, values in enumerate(kept)]


if __name__ == "__main__":
    main()
