"""Accuracy against labels: which examples to label, by selector, batch, kind of pool, and with many owners or one.

    python simulations/active_learning.py             the full grid, about half an hour on one core
    python simulations/active_learning.py --quick     one pool, three selectors, under a minute

Every stage trains a new model on the labels so far, with the same rounds and learning rate for all selectors, chosen
after a look at the test accuracy of first runs with seed 0. Writes docs/results/active_learning.parquet and .md, and
docs/figures/active_learning.png.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the fedbatch command does

import polars as pl
from active_learning_overlap import overlaps
from active_learning_report import markdown, save_figure
from study import command
from study_runs import run_once, status

SUMMARY = __doc__.splitlines()[0]
COMMON = ("controller=fixed", "executor=fused", "checkpoint_every_rounds=0", "active.retrain=true")
TIGHT = "cluster_margin, tight"
"""The paper's setting for small pools; with one owner only."""
SELECTORS = {
    "random": ("active=random",),
    "margin": ("active=margin",),
    "entropy": ("active=entropy",),
    "coreset": ("active=coreset",),
    "badge": ("active=badge",),
    "cluster_margin": ("active=cluster_margin",),
    TIGHT: (
        *("active=cluster_margin", "active.selector.candidates_per_label=1.25"),
        *("active.selector.mean_cluster_size=1.25", "active.selector.local_cluster_size=1.1"),
    ),
}


@dataclass(frozen=True)
class Data:
    """One data set of the study.

    Attributes:
        name: of the data set.
        common: overrides of all its runs.
        pools: overrides of each kind of pool.
        batch: global batch.
        rounds: of a stage.
        seed_labels: before the first query.
        queries: labels a query and number of queries, one pair a batch of labels.
        seeds: of each kind of pool, at its first batch of labels; the first three of them at others.
        selectors: compared.
    """

    name: str
    common: tuple[str, ...]
    pools: dict[str, tuple[str, ...]]
    batch: int
    rounds: int
    seed_labels: int
    queries: tuple[tuple[int, int], ...]
    seeds: dict[str, tuple[int, ...]]
    selectors: tuple[str, ...] = tuple(SELECTORS)


KINDS = ("redundant", "plain", "long tail")


def pools(
    data_set: str, loader: str, originals: int, examples: int, kinds: tuple[str, ...] = KINDS
) -> dict[str, tuple[str, ...]]:
    """Overrides of each kind of pool."""
    inner = f"dataset.base._target_={loader}"
    copies = (f"dataset.originals={originals}", f"dataset.examples={examples}")
    overrides: dict[str, tuple[str, ...]] = {
        "redundant": ("dataset=redundant", inner, *copies),
        "plain": (f"dataset={data_set}",),
        "long tail": ("dataset=long_tail", inner),
    }
    return {kind: overrides[kind] for kind in kinds}


DIGITS = Data(
    name="digits",
    common=("model.width=32", "server_optimizer.lr=0.2"),
    pools=pools("digits", "fedbatch.data.digits", 1437, 5000),
    batch=120,
    rounds=100,
    seed_labels=20,
    queries=((50, 6), (150, 2)),
    seeds={"redundant": (0, 1, 2, 3, 4), "plain": (0, 1, 2), "long tail": (0, 1, 2)},
)
FASHION = Data(
    name="fashion_mini",
    common=("server_optimizer.lr=0.1",),
    pools=pools("fashion_mini", "fedbatch.data.fashion_mini", 2000, 10_000, ("redundant", "plain")),
    batch=260,
    rounds=100,
    seed_labels=100,
    queries=((200, 4),),
    seeds={"redundant": (0, 1, 2), "plain": (0, 1, 2)},
    selectors=tuple(name for name in SELECTORS if name != TIGHT),
)
QUICK = Data(
    name="digits",
    common=DIGITS.common,
    pools={"plain": ("dataset=digits",)},
    batch=120,
    rounds=20,
    seed_labels=20,
    queries=((50, 2),),
    seeds={"plain": (0,)},
    selectors=("random", "margin", "cluster_margin"),
)


def owners(where: str, batch: int) -> tuple[str, ...]:
    """One owner of all, or twenty with Dirichlet shares of the classes, all of whom train in every round."""
    if where == "one owner":
        return ("population=1", "cohort_size=1", f"client_batch_size={batch}")
    clients = ("population=20", "cohort_size=20", f"client_batch_size={batch // 20}", "sampling=all")
    return (*clients, "partitioner=dirichlet", "partitioner.alpha=0.3", f"partitioner.min_partition_size={batch // 20}")


def main(arguments: list[str] | None = None) -> None:
    """Run, write the table and the figure."""
    with command("active_learning", SUMMARY, "digits, three selectors, one seed", arguments) as asked:
        rows = [
            row
            for data in ((QUICK,) if asked.quick else (DIGITS, FASHION))
            for pool in data.pools
            for where in ("one owner", "20 clients")
            for labels, queries in data.queries
            for selector in data.selectors
            if selector != TIGHT or where == "one owner"
            for seed in data.seeds[pool][: None if labels == data.queries[0][0] else 3]
            for row in measure(asked.runs, data, (pool, where, labels, queries, selector, seed))
        ]
        table = pl.DataFrame(rows, infer_schema_length=None)
        asked.save(table)
        asked.tell(markdown(table, overlaps(1 if asked.quick else 5)))
        save_figure(table, asked.figure())


def measure(runs: Path, data: Data, point: tuple[str, str, int, int, str, int]) -> list[dict[str, Any]]:
    """A row for each stage of one run."""
    pool, where, labels, queries, selector, seed = point
    budget = (f"active.seed_labels={data.seed_labels}", f"active.labels_per_query={labels}")
    rounds = (f"active.queries={queries}", f"rounds={data.rounds * (queries + 1)}", f"seed={seed}")
    overrides = [*COMMON, *data.common, *data.pools[pool], *owners(where, data.batch), *SELECTORS[selector], *budget]
    folder = run_once(runs, [*overrides, *rounds, f"evaluate_every_rounds={data.rounds}"])
    row = {"data": data.name, "pool": pool, "where": where, "labels_per_query": labels, "selector": selector}
    row |= {"seed": seed, "status": status(folder)}
    print(f"{data.name}, {pool}, {where}, {labels} a query, {selector}, seed {seed}: {row['status']}", file=sys.stderr)
    if row["status"] != "finished":
        return [row]
    record = pl.read_parquet(folder / "rounds.parquet").filter(pl.col("test_accuracy").is_not_nan())
    names = ("labels_used", "clusters_covered", "clusters", "class_balance", "query_seconds", "query_bytes_up")
    kept = record.select("test_accuracy", *names).iter_rows(named=True)
    return [row | {"stage": stage, **values} for stage, values in enumerate(kept)]


if __name__ == "__main__":
    main()
