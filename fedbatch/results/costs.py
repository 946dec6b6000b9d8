"""What a round costs, in the currencies that people pay: the named costs of ``fedbatch advise``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedbatch.results.critical_rows import Record
from fedbatch.results.critical_table import size
from fedbatch.results.round_seconds import round_seconds

Coefficients = Sequence[float]
OWN = "yours"
NETWORKS: Mapping[str, Mapping[str, float]] = {
    "lan": {
        "latency_seconds": 0.001,
        "bandwidth_down_bytes_per_second": 125e6,
        "bandwidth_up_bytes_per_second": 125e6,
    },
    "wan": {
        "latency_seconds": 0.05,
        "bandwidth_down_bytes_per_second": 2.5e6,
        "bandwidth_up_bytes_per_second": 1.25e6,
    },
}
"""Links of a client: one gigabit a second inside a house, and what the config starts with for clients at home."""
NAMES = ("rounds", "examples", "bytes", *NETWORKS, OWN)
COMPUTE = ("compute_seconds_per_example", "speed_spread")


@dataclass(frozen=True)
class Cost:
    """A way to count what a run costs.

    Attributes:
        name: in the table.
        unit: "rounds", "examples", "bytes", "seconds", or "" for a cost of one's own.
        meaning: of a round's cost, in words; empty where the name says it.
        of_round: cost of a round by its clients and the examples of each; NaN where it cannot be had.
    """

    name: str
    unit: str
    meaning: str
    of_round: Callable[[float, float], float] = field(repr=False, compare=False)

    def shown(self, amount: float) -> str:
        """An amount with its unit.

        >>> Cost("wan", "seconds", "", lambda cohort, each: 1.0).shown(5432)
        '1.51 h'
        """
        if self.unit == "bytes":
            return size(amount)
        if self.unit == "seconds":
            return f"{digits(amount)} s" if amount < 600 else f"{digits(amount / 3600)} h"
        return digits(amount)


def digits(number: float) -> str:
    """Three digits, or all of a whole number.

    >>> digits(0.12345), digits(12.345), digits(12345.6)
    ('0.123', '12.3', '12,346')
    """
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def costs_of(
    config: Mapping[str, Any], record: Record, given: Mapping[str, Coefficients], trust: Sequence[str] = ()
) -> tuple[Cost, ...]:
    """The six costs that everybody has, and those that are given.

    Args:
        config: of the run.
        record: of the run, which says how many bytes a client sends and receives.
        given: by name, what a round, a client in a round, an example and a byte cost.
        trust: modules whose code the run's time model may name.

    Raises:
        ConfigError: the run's time model is code that is not trusted.
    """
    of_client = record.bytes_up + record.bytes_down
    own = config.get("time_model") or {}
    compute = {"compute_seconds_per_example": 0.001, "speed_spread": 0.0} | {k: own[k] for k in COMPUTE if k in own}
    found = [
        Cost("rounds", "rounds", "", lambda cohort, each: 1.0),
        Cost("examples", "examples", "", lambda cohort, each: cohort * each),
        Cost("bytes", "bytes", "", lambda cohort, each: cohort * of_client),
    ]
    for name, links in NETWORKS.items():
        model = {"_target_": "fedbatch.batch.TimeModel", **compute, **links}
        found.append(Cost(name, "seconds", _words(model), round_seconds({**config, "time_model": model}, record)))
    found.append(Cost(OWN, "seconds", f"time_model: {_words(own)}", round_seconds(config, record, trust)))
    return (*found, *(_linear(name, rates, of_client) for name, rates in given.items()))


def _linear(name: str, rates: Coefficients, of_client: float) -> Cost:
    a_round, a_client, an_example, a_byte = rates
    meaning = f"{a_round:g} a round, {a_client:g} a client, {an_example:g} an example, {a_byte:g} a byte"
    return Cost(
        name,
        "",
        meaning,
        lambda cohort, each: a_round + cohort * (a_client + each * an_example + of_client * a_byte),
    )


def _words(model: Mapping[str, Any]) -> str:
    """A time model in words; one's own by its name."""
    if model.get("speeds"):
        return f"speeds of clients by {model['speeds']}, latency {1000 * model['latency_seconds']:g} ms"
    try:
        down, up = (model[f"bandwidth_{way}_bytes_per_second"] / 1e6 for way in ("down", "up"))
        return (
            f"latency {1000 * model['latency_seconds']:g} ms, {down:g} MB/s down, {up:g} MB/s up, "
            f"{1000 * model['compute_seconds_per_example']:g} ms an example"
        )
    except KeyError:
        return str(model.get("_target_", "none"))
