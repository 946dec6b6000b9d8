"""Choices against a search by hand over all batches, on sums that are known."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from fedbatch.batch.one_run import ToLoss
from fedbatch.results.advice import choose, rule_of
from fedbatch.results.costs import Cost
from fedbatch.results.critical import Critical
from fedbatch.results.ways import ways_of

S_MIN, E_MIN, BYTES = 100.0, 20_000.0, 1e6
COHORTS, EACH = (8, 16, 32, 64, 100), (1, 2, 4, 8, 16, 32, 64)
COSTS = {
    "rounds": lambda cohort, each: 1.0,
    "examples": lambda cohort, each: cohort * each,
    "bytes": lambda cohort, each: cohort * BYTES,
    "lan": lambda cohort, each: 0.002 + 0.001 * each,
    "wan": lambda cohort, each: 0.7 + 0.001 * each,
    "cloud": lambda cohort, each: 1 + 0.1 * cohort + 0.01 * cohort * each,
}


def found(unit="examples", drift=0.0, s_min=S_MIN, e_min=E_MIN, error=0.0, population=100):
    """A probe of 16 clients with 4 examples; the rounds of every batch are known within a share of ``error``."""
    draws = np.outer(np.linspace(1 - error, 1 + error, 201), [s_min, e_min])
    bounds = (0.0, 1.0)
    goal = ToLoss(0.5, 400, 25_600, s_min, e_min, e_min / s_min, bounds, bounds, bounds, 0.0, draws)
    return Critical(
        Path("runs/p"), unit, "loss", 64.0, 16.0, 4.0, population, drift, True, (goal,), (), BYTES, lambda *_: 1.0
    )


def of(name, run=None, nominal=4, most_each=64, rule="gain"):
    run = run or found()
    return choose(run, Cost(name, name, "", COSTS[name]), ways_of(run, nominal, most_each), rule)


def rounds(cohort, each):
    return S_MIN + E_MIN / (cohort * each)


@pytest.mark.parametrize("name", [name for name in COSTS if name != "rounds"])
def test_the_smallest_of_those_that_hardly_cost_more(name):
    amounts = {shape: rounds(*shape) * COSTS[name](*shape) for shape in product(COHORTS, EACH)}
    limit = 1.05 * min(amounts.values())
    batch = min(cohort * each for (cohort, each), amount in amounts.items() if amount <= limit)
    least = min(amount for (cohort, each), amount in amounts.items() if cohort * each == batch)
    choice = of(name)
    assert (choice.batch, choice.amount) == (batch, pytest.approx(least))
    assert choice.amount == pytest.approx(amounts[choice.cohort_size, choice.client_batch_size])
    assert choice.rounds == pytest.approx(S_MIN + E_MIN / batch)
    assert choice.rounds_with_margin == math.ceil(1.25 * choice.rounds)


def test_rounds_alone_end_where_doubling_gains_under_a_tenth():
    choice = of("rounds")
    gains = {b: 1 - rounds(1, 2 * b) / rounds(1, b) for b in sorted({c * e for c, e in product(COHORTS, EACH)})}
    assert choice.batch == min(batch for batch, gain in gains.items() if gain < 0.1) == 800
    assert choice.fewer_rounds == pytest.approx(rounds(1, 800) / rounds(1, 1600))
    assert "always needs the fewest rounds" in choice.why and "under 10%" in choice.why
    few = of("rounds", most_each=4)  # 400 = 100 x 4 is the most, not 64 x 4, which has no exact double
    assert (few.cohort_size, few.client_batch_size) == (100, 4) and math.isnan(few.fewer_rounds)
    assert "the largest here" in few.why


def test_doubling_is_told_of_batches_that_are_no_powers_of_two():
    run = Critical(**{**vars(found()), "cohort": 100.0, "client_batch": 80.0, "batch": 8000.0})
    choice = of("rounds", run, nominal=80, most_each=80)  # 80, 40, 20, 10, 5, 2, 1 examples
    batches = sorted({c * each for c, each in product((12, 25, 50, 100), (80, 40, 20, 10, 5, 2, 1))})
    gaining = [b for b in batches if rounds(1, 2 * b) / rounds(1, b) < 0.9]
    assert choice.batch > max(gaining) and choice.batch in (750, 800, 960, 1000)


def test_what_is_within_the_error_is_the_same():
    sure, vague = of("wan", found()), of("wan", found(error=0.3))
    assert vague.batch < sure.batch and vague.amount <= 1.3 * sure.amount
    low, high = vague.rounds_interval
    assert vague.amount_interval == (pytest.approx(low * 0.704, rel=0.2), pytest.approx(high * 0.704, rel=0.2))


@pytest.mark.parametrize("name", COSTS)
def test_twice_the_batch_is_made_in_the_cheaper_way(name):
    choice = of(name, most_each=256)
    cohort, each = choice.cohort_size, choice.client_batch_size
    ways = [(2 * cohort, each)] * (2 * cohort <= 100) + [(cohort, 2 * each)] * (2 * each <= 256)
    least = min(rounds(*way) * COSTS[name](*way) for way in ways)
    assert choice.more_cost == pytest.approx(least / (rounds(cohort, each) * COSTS[name](cohort, each)))
    assert choice.fewer_rounds == pytest.approx(rounds(cohort, each) / rounds(cohort, 2 * each))


def test_rates_follow_the_gain_or_the_square_root():
    gain, root = of("rounds"), of("rounds", rule="sqrt")
    assert gain.lr_factor == pytest.approx((1 + 200 / 64) / (1 + 200 / 800))
    assert root.lr_factor == pytest.approx(math.sqrt(800 / 64))
    assert rule_of({"_target_": "torch.optim.SGD", "momentum": 0.9}) == "gain"
    assert rule_of({"_target_": "torch.optim.AdamW"}) == rule_of({"_target_": "mine.Own"}) == "sqrt"


def test_after_local_steps_only_cohorts_vary():
    run = found("clients", math.nan, e_min=E_MIN / 4)
    ways = ways_of(run, 4, 64)
    assert [(way.cohort_size, way.client_batch_size) for way in ways] == [(cohort, 4) for cohort in COHORTS]
    rounds_, capped = (choose(run, Cost("rounds", "", "", COSTS["rounds"]), ways, "gain", cap) for cap in (9, 2))
    assert rounds_.lr_factor == pytest.approx((1 + 50 / 16) / (1 + 50 / 100)) and capped.lr_factor == 2


def test_clients_that_take_all_that_they_have():
    assert {way.client_batch_size for way in ways_of(found(), None, 64)} == {None}


def test_drift_is_not_averaged_by_more_examples_of_the_same_clients():
    run = found("clients", 0.9, e_min=E_MIN / 4)
    choice = of("wan", run)
    assert choice.cohort_size == 100 and choice.client_batch_size <= 4


def test_few_and_many_clients():
    small = Critical(**{**vars(found(population=5)), "cohort": 5.0, "batch": 20.0})
    assert {way.cohort_size for way in ways_of(small, 4, 4)} == {5}
    many = ways_of(found(population=1_000_000), 4, 4)
    assert max(way.cohort_size for way in many) == 16 * 2**10
