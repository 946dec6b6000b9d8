"""When a run queries for labels, how many, and who decides."""

from dataclasses import dataclass
from typing import Any

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
