"""Checks of a config that need neither data nor torch: choices, ranges, and fields against each other."""

import difflib
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fedbatch.config import ranges
from fedbatch.core.columns import TARGETS
from fedbatch.core.errors import ConfigError

if TYPE_CHECKING:
    from fedbatch.config.schema import RunConfig

CHOICES = {
    "sampling": ("auto", "uniform", "poisson", "all"),
    "weighting": ("auto", "examples", "uniform"),
    "executor": ("auto", "chain", "fused", "vmap", "loop", "ghost"),
    "matmul_precision": ("highest", "high", "medium"),
    "precision": ("float32", "bf16"),
    "report": ("html", "none"),
    "small_clients": ("accept", "refuse"),
    "target_metric": TARGETS,
}


def check(config: "RunConfig") -> None:
    """Check fields against each other.

    Raises:
        ConfigError: naming the field and the remedy.
    """
    ranges.check(asdict(config))
    for name, choices in CHOICES.items():
        value = getattr(config, name)
        if name == "target_metric" and config.task and str(value).startswith(("test_", "average_test_")):
            continue  # a task has scores of its own, and is asked when it is built
        _require(
            value in choices,
            f"{name} must be one of {', '.join(choices)} (got {value!r}){did_you_mean(value, choices)}",
        )
    _require(
        config.target_metric != "training_set_loss" or config.training_set_examples > 0,
        "target_metric=training_set_loss needs training_set_examples, e.g. training_set_examples=2000",
    )
    _require(
        not config.target_metric.startswith("average_") or bool(config.averaging),
        f"target_metric={config.target_metric} needs averaged parameters, e.g. averaging=polynomial",
    )
    _check_groups(config)
    _check_cohorts(config)
    _require(
        config.nodes <= config.population,
        f"nodes ({config.nodes}) is larger than population ({config.population}); a node hosts at least one client",
    )
    _require(
        config.min_clients <= config.population,
        f"min_clients ({config.min_clients}) is larger than population ({config.population})",
    )
    _require_cohort("cohort_size", config.cohort_size, config)


def _check_cohorts(config: "RunConfig") -> None:
    _require(
        not config.sampler or config.sampling == "auto",
        f"sampling={config.sampling} and sampler both say how clients are drawn; set sampler=plain, or sampling=auto",
    )
    _require(
        config.over_selection == 1 or config.sampling in ("auto", "uniform"),
        f"over_selection={config.over_selection:g} asks for more clients than the cohort and takes the first, but "
        f"sampling={config.sampling} has no cohort of a fixed size; set over_selection=1, or sampling=uniform",
    )


def _check_groups(config: "RunConfig") -> None:
    groups = config.noise_scale.groups
    _require(
        groups == 0 or (groups >= 4 and groups & (groups - 1) == 0),
        f"noise_scale.groups must be 0 for none, or 4, 8, 16 and so on (got {groups})",
    )
    _require(
        not config.noise_scale.layers or groups > 0,
        "noise_scale.layers reads layers in rounds that are asked group by group; set noise_scale.groups=8",
    )
    _require(
        not groups or not config.privacy,
        "noise_scale.groups: under privacy one noised sum is released, and no sums of groups; set noise_scale.groups=0",
    )
    _require(
        not groups or not config.aggregator,
        "noise_scale.groups measures the mean of all updates, which aggregator=mean takes; set noise_scale.groups=0",
    )


def check_phases(config: "RunConfig", phases: Iterable[Any], largest: int | None = None) -> None:
    """Check what a controller may choose against the run.

    Args:
        config: of the run.
        phases: of the controller.
        largest: its ``max_cohort_size``, if it has one.

    Raises:
        ConfigError: a phase that cannot be run, or phases whose names lie.
    """
    if largest is not None:
        _require_cohort("controller.max_cohort_size", largest, config)
    sizes = {}
    for phase in phases:
        _require_cohort(f"controller.{phase.name}.cohort_size", phase.cohort_size, config)
        _require(
            phase.cohort_size >= config.noise_scale.groups,
            f"noise_scale.groups ({config.noise_scale.groups}) is larger than the cohort of phase {phase.name} "
            f"({phase.cohort_size}); every group needs a client",
        )
        sizes[phase.name] = phase.cohort_size * (phase.client_batch_size or 1)
    _require(
        sizes.get("small", 0) <= sizes.get("large", float("inf")),
        f"controller.large ({sizes.get('large')} examples) is smaller than controller.small ({sizes.get('small')}); "
        "raise controller.large.cohort_size or controller.large.client_batch_size",
    )


def did_you_mean(word: Any, known: Iterable[str]) -> str:
    """A suggestion to append to an error, or nothing.

    >>> did_you_mean("ronds", ["rounds", "seed"])
    '; did you mean rounds?'
    """
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _require_cohort(name: str, size: int, config: "RunConfig") -> None:
    or_fixed = "" if name == "cohort_size" else ", or take controller=fixed"
    _require(
        size <= config.population,
        f"{name} ({size}) is larger than population ({config.population}); lower it or raise population{or_fixed}",
    )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
