"""Seconds by stage of one round."""

import math
import time
from typing import Literal

Stage = Literal["plan_seconds", "client_seconds", "aggregate_seconds", "step_seconds", "evaluate_seconds"]


class Stopwatch:
    """Seconds by stage of one round.

    Args:
        coarse: count only the whole seconds of the clock that a stage passes, as under privacy: a precise time tells
            how many examples were drawn. Over many rounds they add up to the same.
    """

    def __init__(self, coarse: bool = False) -> None:
        self._coarse = coarse
        self._last = self._now()
        self.laps: dict[str, float] = {}

    def _now(self) -> float:
        now = time.perf_counter()
        return float(math.floor(now)) if self._coarse else now

    def lap(self, stage: Stage) -> None:
        """End a stage, or one more part of it."""
        now = self._now()
        self.laps[stage] = self.laps.get(stage, 0.0) + now - self._last
        self._last = now
