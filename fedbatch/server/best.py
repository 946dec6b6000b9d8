"""The best value of ``target_metric`` so far, and how long a run has waited for a better one."""

import math
from dataclasses import dataclass, replace

from fedbatch.server.server import Row
from fedbatch.setup.learning import Target


@dataclass(frozen=True)
class Best:
    """The best value so far.

    Attributes:
        value: of the metric; NaN where there is none yet.
        rounds: done when it was measured.
        waited: later measurements, none of which was better by more than ``min_delta``.
    """

    value: float = math.nan
    rounds: int = 0
    waited: int = 0

    def after(self, row: Row, target: Target, min_delta: float) -> "Best":
        """With one more round; a round in which the metric was not measured changes nothing.

        >>> target = Target("test_loss", is_higher_better=False)
        >>> first = Best().after({"rounds": 10, "test_loss": 1.0}, target, min_delta=0.1)
        >>> first.after({"rounds": 20, "test_loss": 0.95}, target, min_delta=0.1)
        Best(value=1.0, rounds=10, waited=1)
        """
        value = float(row.get(target.column, math.nan))
        if math.isnan(value):
            return self
        ahead = value - self.value if target.is_higher_better else self.value - value
        if math.isnan(self.value) or ahead > min_delta:
            return Best(value, int(row["rounds"]))
        return replace(self, waited=self.waited + 1)


def waited_enough(best: Best, patience: int | None) -> bool:
    """Whether the run ends because the metric has not become better for ``patience`` measurements."""
    return patience is not None and best.waited >= patience


def plateau(best: Best, target: Target) -> str:
    """Why a run ends that has waited enough, in words."""
    name = target.column.replace("_", " ")
    return f"{name} has not become better than {best.value:.4g} after round {best.rounds} (patience={best.waited})"
