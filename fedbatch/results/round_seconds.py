"""Seconds that a round of another shape would take, by a run's own time model."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from fedbatch.config.build import build
from fedbatch.config.trust import OF_A_FOLDER, refuse_strangers
from fedbatch.core.errors import ConfigError
from fedbatch.results.critical_rows import Record

DRAWS = 16
"""Cohorts whose seconds are averaged."""


def round_seconds(
    config: Mapping[str, Any], record: Record, trust: Sequence[str] = ()
) -> Callable[[float, float], float]:
    """Seconds of a round by numbers of clients and examples of each; NaN where the run's model cannot be built.

    Raises:
        ConfigError: the model is code that is not trusted.
    """
    refuse_strangers({"time_model": config.get("time_model")}, trust, OF_A_FOLDER)
    try:
        model = build("time_model", config["time_model"])
        if hasattr(model, "check_clients"):
            model.check_clients(np.arange(config["population"]))
    except (ConfigError, KeyError, ValueError):  # one's own, or its file, and not where it was
        return lambda cohort, each: float("nan")
    population, seed = config["population"], config["seed"]
    up, down = round(record.bytes_up), round(record.bytes_down)

    @cache
    def mean_over_cohorts(count: int, each: int) -> float:
        rng, examples = np.random.default_rng(seed), np.full(count, each, np.int64)
        cohorts = (np.sort(rng.choice(population, count, replace=False)).astype(np.int64) for _ in range(DRAWS))
        return float(np.mean([model.round_seconds(seed, clients, examples, down, up) for clients in cohorts]))

    # No more clients than there are take part.
    return lambda cohort, each: mean_over_cohorts(min(max(round(cohort), 1), population), max(round(each), 1))
