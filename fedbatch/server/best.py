"""The best value of ``target_metric`` so far, and how long a run has waited for a better one."""

import math
from dataclasses import dataclass, replace

from fedbatch.config.schema import RunConfig
from fedbatch.core.columns import column
from fedbatch.server.server import Row


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

    def after(self, row: Row, config: RunConfig) -> "Best":
        """With one more round; a round in which the metric was not measured changes nothing.

        >>> from types import SimpleNamespace
        >>> asked = SimpleNamespace(target_metric="test_loss", min_delta=0.1)
        >>> first = Best().after({"rounds": 10, "test_loss": 1.0}, asked)
        >>> first.after({"rounds": 20, "test_loss": 0.95}, asked)
        Best(value=1.0, rounds=10, waited=1)
        """
        score = column(config.target_metric)
        value = float(row.get(config.target_metric, math.nan))
        if score is None or math.isnan(value):
            return self
        ahead = value - self.value if score.better == "higher" else self.value - value
        if math.isnan(self.value) or ahead > config.min_delta:
            return Best(value, int(row["rounds"]))
        return replace(self, waited=self.waited + 1)


def waited_enough(best: Best, config: RunConfig) -> bool:
    """Whether the run ends because the metric has not become better for ``patience`` measurements."""
    return config.patience is not None and best.waited >= config.patience


def plateau(best: Best, config: RunConfig) -> str:
    """Why a run ends that has waited enough, in words."""
    name = config.target_metric.replace("_", " ")
    return f"{name} has not become better than {best.value:.4g} after round {best.rounds} (patience={config.patience})"
