import math

import numpy as np
import pytest


@pytest.fixture
def study():
    from simulations import steps_to_goal

    return steps_to_goal


def points(task="a task", b_crit=100.0, tokens=1, examples=math.inf, b_noise=250.0):
    """Steps of the law itself, three seeds at each batch, and a run of the search that must not count."""
    rows = []
    for batch in (8, 32, 128, 512):
        effective = 1 / (1 / batch - 1 / examples)
        for seed in (0, 1, 100):
            row = {"task": task, "tokens": tokens, "examples": examples, "goal": 0.5, "batch": batch, "rate": 0.1}
            steps = 20 * (1 + b_crit / effective) * (5 if seed == 100 else 1)
            rows.append(
                row | {"seed": seed, "tuning": seed == 100, "steps": steps, "b_noise": b_noise, "b_start": b_noise / 10}
            )
    return rows


def test_the_fit_finds_the_law_without_the_search_and_counts_tokens(study):
    (row,) = study.fit(points(tokens=32, examples=2_000.0))
    assert (row["s_min"], row["e_min"], row["b_crit"]) == pytest.approx((20, 32 * 2_000, 3_200))
    assert row["b_start"] == pytest.approx(32 * 25)
    assert row["b_noise"] == pytest.approx(32 * 250) and row["seeds"] == 2 and row["unreached"] == 0


def test_runs_that_did_not_arrive_are_left_out_and_counted(study):
    rows = points()
    rows[0]["steps"] = math.nan
    (row,) = study.fit(rows)
    assert row["unreached"] == 1 and row["b_crit"] == pytest.approx(100)


def test_each_goal_gets_its_own_best_rate_from_a_seed_that_is_not_reported(study):
    from simulations.goals import Curve

    asked = []

    def run(batch, rate, seed):
        asked.append((rate, seed))
        # Fast at first with a large rate, and stuck at a floor that rises with it.
        t = np.arange(400.0)
        return Curve(t, np.exp(-rate * t) + 0.04 * rate, np.ones(400), np.ones(400))

    rows = study.measure(run, [8], (0.5, 0.05), 0.25, math.inf, (0, 1))
    reported = {(row["goal"], row["rate"]) for row in rows if not row["tuning"]}
    rates = dict(reported)
    assert len(reported) == 2 and rates[0.5] > rates[0.05]
    assert {seed for rate, seed in asked if rate not in rates.values()} == {study.TUNING_SEED}
