"""Ratios between systems of one run, and the figures they should reach."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Literal

Rows = dict[str, dict[str, Any]]  # one kind of work, by system
WORK = ("work", "model", "cohort", "batch_size", "threads")

TO_THE_LIMIT = {
    ("fedsgd", "mlp", 10): 2.0,
    ("fedsgd", "mlp", 50): 1.5,
    ("fedsgd", "mlp", 200): 1.2,
    ("fedsgd", "cnn", 10): 1.0,
    ("fedsgd", "cnn", 50): 1.0,
    ("fedsgd", "cnn", 200): 1.0,
    ("local_sgd", "mlp", 50): 1.35,
    ("local_sgd", "mlp", 200): 1.3,
    ("local_sgd", "cnn", 10): 1.15,
    ("local_sgd", "cnn", 50): 1.15,
}
"""Largest ratio of a round to the fused limit without clients, by work, model and cohort, for batches of 10."""


@dataclass(frozen=True)
class Ratio:
    """A figure and its target, the least or the most it may be.

    Attributes:
        name: what is divided by what.
        ratio: of wall seconds, by which the target is judged.
        cpu_ratio: of CPU seconds, which other work on the machine disturbs less; None where it makes no sense.
        target, bound: the target and which side of it is good.
    """

    name: str
    ratio: float
    cpu_ratio: float | None
    target: float
    bound: Literal["at least", "at most"]

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.ratio >= self.target if self.bound == "at least" else self.ratio <= self.target

    @property
    def verdict(self) -> str:
        """In words.

        >>> Ratio("slow / fast", 4.5, None, 6.0, "at least").verdict
        'missed by 25 %'
        """
        return "met" if self.met else f"missed by {abs(self.ratio / self.target - 1):.0%}".replace("%", " %")

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"met": self.met}


def ratios(rows: list[dict[str, Any]]) -> list[Ratio]:
    """Every ratio with a target that these rows give."""
    found: list[Ratio] = []
    for _, group in groupby(rows, key=lambda row: [row[name] for name in WORK]):
        work = {row["system"]: row for row in group}
        found += _fedsgd(work) if "fedbatch fused" in work else _local_sgd(work)
    return found


def _fedsgd(work: Rows) -> Iterator[Ratio]:
    case = next(iter(work.values()))
    mlp, large = case["model"] == "mlp", case["cohort"] == 200
    ours = _fastest(work, ("fedbatch chain", "fedbatch fused", "fedbatch vmap", "fedbatch loop"))
    if case["batch_size"] == 10 and (target := TO_THE_LIMIT.get((case["work"], case["model"], case["cohort"]))):
        yield from _ratio(work, ours, "limit", target, "at most")
    yield from _ratio(work, "JAX", ours, 1.0, "at least")
    yield from _measuring(work)
    if mlp and large and case["batch_size"] == 10:
        yield from _ratio(work, "plain loop with norms", "fedbatch fused", 9.0, "at least")
    if case["batch_size"] == 50:
        yield from _ratio(work, "pfl", "fedbatch fused", 10.0 if mlp else 1.8, "at least")


def _local_sgd(work: Rows) -> Iterator[Ratio]:
    case = next(iter(work.values()))
    ours = _fastest(work, ("fedbatch chain", "fedbatch vmap", "fedbatch loop"))
    if target := TO_THE_LIMIT.get((case["work"], case["model"], case["cohort"])):
        yield from _ratio(work, ours, "limit", target, "at most")
    yield from _ratio(work, "JAX", ours, 1.0, "at least")
    yield from _ratio(work, "Flower on Ray", ours, 100.0, "at least")
    yield from _measuring(work)
    if case["model"] == "cnn":
        yield from _ratio(work, "pfl", ours, 1.25, "at least")
    elif case["cohort"] >= 50:
        yield from _ratio(work, "pfl", ours, 6.0, "at least")


def _fastest(work: Rows, systems: tuple[str, ...]) -> str:
    """What ``executor=auto`` would take."""
    return min((name for name in systems if name in work), key=lambda name: work[name]["seconds_median"])


def _measuring(work: Rows) -> Iterator[Ratio]:
    for system in [name for name in work if f"{name} unmeasured" in work]:
        yield from _ratio(work, system, f"{system} unmeasured", 1.15, "at most")


def _ratio(work: Rows, above: str, below: str, target: float, bound: Literal["at least", "at most"]) -> Iterator[Ratio]:
    if above in work and below in work:
        values = (work[above][name] / work[below][name] for name in ("seconds_median", "cpu_seconds"))
        yield Ratio(f"{title(work[above])}: {above} / {below}", *values, target=target, bound=bound)


def title(row: dict[str, Any]) -> str:
    """The work of a row in a few words."""
    threads = "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"
    return f"{row['work']} b={row['batch_size']} {row['model']} C={row['cohort']}, {threads}"
