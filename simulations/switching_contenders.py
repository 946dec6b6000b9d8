"""Who takes part in the study of switching: overrides by cost axis, and whose learning rate."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from simulations.switching_costs import AXES, LINKS, Budget, round_cost

SMALL, MIDDLE, LARGE = (16, 4), (64, 4), (64, 16)  # clients, examples of each
FIXED = {"small": SMALL, "middle": MIDDLE, "large": LARGE}
LATE = 0.7  # of the examples, after which the late switch goes large
MOST = {"rounds": 1, "examples": 4, "bytes": 4, "seconds, LAN": 3, "seconds, WAN": 1.25}
"""Rounds that surely spend the budget of an axis, in those of the large batch; goodput ends earlier by itself."""


@dataclass(frozen=True)
class Contender:
    """A controller with what it is told.

    Attributes:
        name: in the tables.
        options: overrides by cost axis; the same on all axes for who is told nothing.
        score: column by which it is judged.
        is_told: it knows the axis and its budget, so that the number of rounds stands in its options.
        rate_of: whose tuned rate it takes; None tunes one of its own.
    """

    name: str
    options: Mapping[str, tuple[str, ...]]
    score: str = "average_test_accuracy"
    is_told: bool = False
    rate_of: str | None = None


def contenders(rounds: int, budget: Budget | None) -> list[Contender]:
    """All of them, who is told nothing first; only those without a budget where none is known yet.

    Args:
        rounds: R, of the large batch.
        budget: what each axis allows.
    """
    constant = ("controller=fixed", "learning_rate.rule=constant")
    both = (*_sizes("controller.small.", SMALL), *_sizes("controller.large.", LARGE))
    old = ("controller=two_phase_switch", *both, "noise_scale.decay=0.98", "noise_scale.memory=0")
    norm_test = ("controller=norm_test", *_sizes("", SMALL), "controller.max_cohort_size=${population}")
    untold = {name: (*constant, *_sizes("", size)) for name, size in FIXED.items()} | {
        "ladder": ("controller=noise_scale_switch", *both),
        "old switch": (*old, "learning_rate.max_growth=null"),
        "norm test": norm_test,
    }
    found = [Contender(name, dict.fromkeys(AXES, options)) for name, options in untold.items()]
    if budget is None:
        return found
    cosine = (*constant, *_sizes("", MIDDLE), "learning_rate.decay=cosine")
    late = ("controller=late_switch", f"controller.share={LATE}", *both)
    ends = {axis: _every(budget[axis] / round_cost(axis, MIDDLE, budget)) for axis in AXES}
    late_ends = {axis: _every(_late_rounds(axis, budget)) for axis in AXES}
    return [
        *found,
        Contender("middle, cosine", {a: (*cosine, *ends[a]) for a in AXES}, "test_accuracy", True),
        Contender("late switch", {a: (*late, *late_ends[a]) for a in AXES}, is_told=True, rate_of="ladder"),
        Contender("goodput", {a: _goodput(a, rounds, budget) for a in AXES}, is_told=True, rate_of="ladder"),
    ]


def _sizes(prefix: str, size: tuple[int, int]) -> tuple[str, ...]:
    return f"{prefix}cohort_size={size[0]}", f"{prefix}client_batch_size={size[1]}"


def _every(rounds: float) -> tuple[str, ...]:
    """As many rounds as surely spend a budget, and how often they are evaluated."""
    return f"rounds={math.ceil(rounds)}", f"evaluate_every_rounds={max(1, round(rounds / 20))}"


def _late_rounds(axis: str, budget: Budget) -> int:
    """Rounds of the late switch that spend a budget: LATE of the examples in small batches, the rest in large ones."""
    ratio = LARGE[0] * LARGE[1] / (SMALL[0] * SMALL[1])
    rounds, spent = 1, 0.0
    while spent < budget[axis]:
        rounds += 1
        of_small = round(rounds * LATE * ratio / (1 - LATE + LATE * ratio))
        spent = of_small * round_cost(axis, SMALL, budget) + (rounds - of_small) * round_cost(axis, LARGE, budget)
    return rounds


def _goodput(axis: str, rounds: int, budget: Budget) -> tuple[str, ...]:
    """Goodput for this axis and its budget, of which bytes are told in models that clients send."""
    sizes = (size for name, of in FIXED.items() for size in _sizes(f"controller.phases.{name}.", of))
    told = budget[axis] / (2 * budget["model_bytes"]) if axis == "bytes" else budget[axis]
    most = round(MOST[axis] * rounds)
    link = vars(LINKS[axis]).items() if axis in LINKS else ()
    return (
        *("controller=goodput", f"controller.cost={axis.split(',')[0]}", f"controller.budget={told:.6g}", *sizes),
        *(f"time_model.{name}={value:g}" for name, value in link if value is not None),
        *(f"rounds={most}", f"evaluate_every_rounds={max(1, most // 40)}"),
    )
