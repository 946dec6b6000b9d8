"""When a run queries for labels, how many, and who decides."""

from dataclasses import dataclass
from typing import Any

from fedbatch.config.schema import RunConfig
from fedbatch.core.errors import ConfigError

SCOPES = ("two_level", "global_only", "local_only")


@dataclass(frozen=True)
class ActiveLearning:
    """Labels for a run that starts with few of them.

    The rounds of the run are cut into ``queries + 1`` equal stages; before each but the first the selector chooses, an
    oracle labels, and training goes on. Only labelled examples are trained on.

    Attributes:
        selector: one of `fedbatch.active.selectors`.
        scope: "two_level" selects as if all pools were one: clusters of clients are merged from sizes, centroids and
            deviations. "global_only" shares no centroid: clusters stay a client's own, all else is decided together.
            "local_only": every client chooses its share by itself.
        seed_labels: labels before round 0, drawn uniformly from all pools.
        labels_per_query: k_t.
        queries: how often.
        retrain: start every stage from a new model; else go on with the old one.
    """

    selector: Any
    scope: str
    seed_labels: int
    labels_per_query: int
    queries: int
    retrain: bool

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise ValueError(f"scope must be one of {', '.join(SCOPES)} (got {self.scope!r})")
        for name in ("seed_labels", "labels_per_query", "queries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1 (got {getattr(self, name)})")
        if not self.selector.ranks_examples and self.scope != "local_only":
            raise ValueError(
                f"scope={self.scope} needs a selector that ranks examples one by one; this one compares embeddings, "
                "which stay with their owner: use active.scope=local_only (with population=1: one pool)"
            )

    def query_of(self, round_: int, rounds: int) -> int:
        """Queries behind round ``round_`` when it starts; the seed labels are query 0."""
        return min(self.queries, round_ // self.stage(rounds))

    def is_due(self, round_: int, rounds: int) -> bool:
        """Whether a query comes just before this round."""
        return round_ % self.stage(rounds) == 0 and round_ // self.stage(rounds) <= self.queries

    def stage(self, rounds: int) -> int:
        """Rounds between queries."""
        return rounds // (self.queries + 1)

    @property
    def local_cut(self) -> dict[str, float | None]:
        """Where a client cuts its tree, as arguments of `fedbatch.active.two_level.cluster_squared`."""
        if self.selector.epsilon is not None:
            return {"epsilon": self.selector.epsilon}
        size = self.selector.mean_cluster_size
        return {"mean_cluster_size": min(size, self.selector.local_cluster_size) if self.scope == "two_level" else size}

    @property
    def global_cut(self) -> dict[str, float | None]:
        """Where the server does."""
        return {"epsilon": self.selector.epsilon, "mean_cluster_size": self.selector.mean_cluster_size}


def check(config: RunConfig, active: ActiveLearning, privacy_unit: str | None, has_positions: bool, pool: int) -> None:
    """Refuse what cannot be run, or would be claimed and not be true.

    Args:
        config: of the run.
        active: its plan for labels.
        privacy_unit: "client", "example" or None.
        has_positions: whether an example has a label a position.
        pool: examples that can be labelled, over all clients.

    Raises:
        ConfigError: naming the field and the remedy.
    """
    needed = active.seed_labels + active.queries * active.labels_per_query
    for wrong, message in (
        (
            config.rounds <= active.queries,
            f"rounds ({config.rounds}) must be more than active.queries ({active.queries}): every stage needs one",
        ),
        (has_positions, "active: labels of single positions cannot be queried; use a data set with one a row"),
        (
            needed > pool,
            f"active: {needed} labels are wanted of {pool} examples; lower active.labels_per_query",
        ),
        (
            privacy_unit == "example",
            "active: which examples are trained on depends on all of a client's, which example-level privacy does not "
            "cover; use privacy=client_central or privacy=none",
        ),
        (
            privacy_unit is not None and active.scope != "local_only",
            f"active.scope={active.scope} sends counts, and two_level raw centroids, outside of the privacy guarantee; "
            "use active.scope=local_only or privacy=none",
        ),
    ):
        if wrong:
            raise ConfigError(message)
