"""Which batch to take for a cost, from what one run says of them all."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from fedbatch.batch.critical import Bounds
from fedbatch.results.costs import Cost
from fedbatch.results.critical import Critical
from fedbatch.results.ways import Way

FLAT, GAIN = 0.05, 0.1
MARGIN = 1.25
"""On the rounds that are predicted: seeds differ, and the law is off by such factors."""


@dataclass(frozen=True)
class Choice:
    """The batch to take for a cost.

    Attributes:
        cost: for which.
        cohort_size: clients of a round.
        client_batch_size: examples of each; None for all that it has.
        batch: examples of a round.
        lr_factor: on the learning rate of the run.
        rounds: to the loss.
        rounds_interval: its 90 % interval.
        amount: the cost to the loss.
        amount_interval: its 90 % interval.
        fewer_rounds: factor by which twice the batch needs fewer rounds; NaN where no larger batch can be made.
        more_cost: factor by which it costs more; below 1 it costs less.
        why: the reason, in words.
    """

    cost: Cost
    cohort_size: int
    client_batch_size: int | None
    batch: float
    lr_factor: float
    rounds: float
    rounds_interval: Bounds
    amount: float
    amount_interval: Bounds
    fewer_rounds: float
    more_cost: float
    why: str

    @property
    def rounds_with_margin(self) -> int:
        """Rounds to configure: a quarter more than predicted, and not fewer than the upper bound."""
        upper = self.rounds_interval[1]
        return math.ceil(max(MARGIN * self.rounds, upper if math.isfinite(upper) else 0.0))


@dataclass(frozen=True)
class Advice:
    """What ``fedbatch advise`` says.

    Attributes:
        run: folder of the probe.
        found: what the probe says of every batch.
        rows: a choice for each cost.
        lr: learning rate of the server in the probe; None where its optimizer has none.
        rule: of the learning rate between batches, "gain" or "sqrt".
        cap: of its factor; finite after local steps.
        notes: what was done that was not asked for.
        doubts: reasons not to trust the numbers; best empty.
        private: whether the config has a privacy mechanism, which the probe left out.
        overrides: of the config, for a proposed run.
    """

    run: Path
    found: Critical
    rows: tuple[Choice, ...]
    lr: float | None
    rule: str
    cap: float
    notes: tuple[str, ...]
    doubts: tuple[str, ...]
    private: bool
    overrides: tuple[str, ...] = field(repr=False)

    def proposed(self, row: Choice) -> list[str]:
        """The overrides of the run that a choice proposes."""
        each = "null" if row.client_batch_size is None else row.client_batch_size
        sizes = [f"cohort_size={row.cohort_size}", f"client_batch_size={each}", f"rounds={row.rounds_with_margin}"]
        rate = [] if self.lr is None else [f"server_optimizer.lr={self.lr * row.lr_factor:.3g}"]
        return [*self.overrides, *sizes, *rate]


def rule_of(optimizer: Mapping[str, Any]) -> str:
    """How the best rate of a server optimizer moves with the batch: by the gain for SGD, else by the square root."""
    return "gain" if optimizer.get("_target_", "").rpartition(".")[2] == "SGD" else "sqrt"


def choose(found: Critical, cost: Cost, ways: Sequence[Way], rule: str, cap: float = math.inf) -> Choice:
    """The batch with the least cost to the lowest loss of the run; of those that hardly cost more, the smallest.

    Where every round costs the same, the largest batch always costs the least. It is then the smallest batch from
    which doubling gains less than a tenth.

    Args:
        found: what the run says.
        cost: to be least.
        ways: of `ways_of`.
        rule: of the learning rate.
        cap: of the factor on the learning rate.
    """
    amounts = {way: way.needs.rounds * _price(cost, way) for way in ways}
    if len({_price(cost, way) for way in ways}) == 1:
        enough = [way for way in ways if _gains(way, amounts) < GAIN]
        chosen = _smallest(enough, amounts, found)
        is_largest = chosen.needs.batch == max(way.needs.batch for way in ways)
        rest = "and this is the largest here" if is_largest else f"but doubling this one gains under {GAIN:.0%}"
        why = f"the largest batch always needs the fewest rounds, {rest}"
    else:
        best = min(ways, key=lambda way: (amounts[way], way.needs.batch))
        upper = best.needs.rounds_interval[1] * _price(cost, best)
        enough = [way for way in ways if amounts[way] <= max((1 + FLAT) * amounts[best], upper)]
        chosen = _smallest(enough, amounts, found)
        why = "the least of all batches here"
        if chosen != best:
            least = f"{cost.shown(amounts[best])} at {best.needs.batch:,.0f}"
            why += f" is {least}; this smaller one costs the same within 5 % or the error"
    own = found.predict(found.batch, found.cohort)
    # 1 + N/B is rounds over the least rounds, so that the gain rule is a ratio of rounds.
    gain, root = own.rounds / chosen.needs.rounds, math.sqrt(chosen.needs.batch / found.batch)
    rate = min(gain if rule == "gain" else root, cap)
    return _choice(cost, chosen, _doubled(found, cost, chosen, ways), amounts, rate, why)


def _price(cost: Cost, way: Way) -> float:
    return cost.of_round(way.needs.cohort, way.needs.client_batch)


def _smallest(enough: Sequence[Way], amounts: Mapping[Way, float], found: Critical) -> Way:
    """The smallest batch; of several ways to make it the cheapest, and of equals the one like the run's own."""

    def key(way: Way) -> tuple[float, float, float]:
        away = abs(math.log(way.cohort_size / found.cohort))
        return float(f"{way.needs.batch:.9g}"), float(f"{amounts[way]:.9g}"), away

    return min(enough, key=key)


def _gains(way: Way, amounts: Mapping[Way, float]) -> float:
    """Share of the cost that twice the batch saves, or the next above that; or the largest, where that is less."""
    enough = min(2 * way.needs.batch, max(other.needs.batch for other in amounts)) * (1 - 1e-9)
    larger = min(other.needs.batch for other in amounts if other.needs.batch >= enough)
    least = min(amount for other, amount in amounts.items() if math.isclose(other.needs.batch, larger))
    return 1 - least / amounts[way]


def _doubled(found: Critical, cost: Cost, way: Way, ways: Sequence[Way]) -> tuple[float, float] | None:
    """Rounds and cost with twice the clients or twice the examples of each, whichever costs less; None for neither."""
    needs, shapes = way.needs, list[float]()
    if 2 * way.cohort_size <= found.population:
        shapes.append(2 * needs.cohort)
    if 2 * needs.client_batch <= max(other.needs.client_batch for other in ways) * (1 + 1e-9):
        shapes.append(needs.cohort)
    twice = [found.predict(2 * needs.batch, cohort) for cohort in shapes]
    costs = [(each.rounds, cost.of_round(each.cohort, each.client_batch) * each.rounds) for each in twice]
    return min(costs, key=itemgetter(1), default=None)


def _choice(
    cost: Cost,
    way: Way,
    twice: tuple[float, float] | None,
    amounts: Mapping[Way, float],
    rate: float,
    why: str,
) -> Choice:
    needs = way.needs
    low, high = needs.rounds_interval
    return Choice(
        cost=cost,
        cohort_size=way.cohort_size,
        client_batch_size=way.client_batch_size,
        batch=needs.batch,
        lr_factor=rate,
        rounds=needs.rounds,
        rounds_interval=needs.rounds_interval,
        amount=amounts[way],
        amount_interval=(low * _price(cost, way), high * _price(cost, way)),
        fewer_rounds=needs.rounds / twice[0] if twice else math.nan,
        more_cost=twice[1] / amounts[way] if twice else math.nan,
        why=why,
    )
