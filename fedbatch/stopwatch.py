"""Seconds by stage of one round."""

import time
from typing import Literal

Stage = Literal["plan_seconds", "client_seconds", "aggregate_seconds", "step_seconds", "evaluate_seconds"]


class Stopwatch:
    """Seconds by stage of one round."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, stage: Stage) -> None:
        """End a stage."""
        now = time.perf_counter()
        self.laps[stage] = now - self._last
        self._last = now
