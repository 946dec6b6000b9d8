"""The grid against the library's own accountant and formulas written down here, for mechanisms by what they declare."""

import itertools
import math
from dataclasses import replace
from functools import cache

import dp_accounting
import dp_accounting.pld
import numpy as np
import pytest

from fedbatch.controllers import Phase
from fedbatch.privacy import ClientCentral, ExampleDistributed, ExampleLocal
from fedbatch.privacy.planning import Question, balanced, doubling, knee, ladder, measured_knee, price, rows_of
from fedbatch.privacy.terms import SamplingPlan

COMMON = {
    "clip_norm": 2.0,
    "clipping": "flat",
    "noise_multiplier": None,
    "noise_schedule": "constant",
    "target_epsilon": 3.0,
    "delta": None,
    "accountant": "auto",
    "measure_noise_scale": True,
    "secret_file": None,
    "generator": "philox",
}
CENTRAL = ClientCentral(**COMMON, clip_quantile=None, clip_rate=0.2, count_noise=None)
LOCAL = ExampleLocal(**COMMON)
SHARED = ExampleDistributed(**COMMON, min_clients=5, colluders=1, secure_aggregation="simulated")


FIRST = Phase("fixed", 10, 8)


def question(mechanism, phase=FIRST, clients=40, each=64, rounds=40, **more):
    return Question(
        terms=SamplingPlan(mechanism, np.full(clients, each), phase),
        target_epsilon=mechanism.target_epsilon,
        delta=1e-5,
        rounds=rounds,
        size=1000,
        bytes_one_way=4000,
        moves_cohort=True,
        examples=lambda phase: phase.client_batch_size or each,
        steps=lambda _: 1,
        has_squares=lambda _: False,
        charged=lambda cohort, rounds: rounds,
        **more,
    )


def epsilon(q, sigma, steps):
    accountant = dp_accounting.pld.PLDAccountant()
    accountant.compose(dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma)), steps)
    return accountant.get_epsilon(1e-5)


@cache
def rows(mechanism):
    return rows_of(question(mechanism))


@pytest.mark.parametrize("mechanism", [CENTRAL, LOCAL], ids=lambda m: type(m).__name__)
def test_every_row_meets_the_target_and_hardly_more(mechanism):
    assert {row.rounds for row in rows(mechanism)} == {10, 20, 40, 80, 160}
    for row in rows(mechanism)[::5]:
        assert 0.97 * 3 < epsilon(row.sample_rate, row.noise_multiplier, row.rounds) <= 3 * (1 + 1e-6)


@pytest.mark.parametrize(
    ("mechanism", "q", "batch", "noises"),
    # clients noise a sum of 10 x 8 examples each by itself, or by shares of which 4 make the whole; or the server does
    [(LOCAL, 1 / 8, 80, 10), (SHARED, 1 / 8, 80, 10 / 4), (CENTRAL, 1 / 4, 10, 1)],
    ids=["local", "distributed", "client"],
)
def test_noise_of_the_mean_and_costs(mechanism, q, batch, noises):
    row = price(question(mechanism), FIRST, 40)
    assert (row.sample_rate, row.batch) == (q, batch)
    assert row.mean_noise == pytest.approx(row.noise_multiplier * 2.0 * math.sqrt(noises) / batch)
    assert (row.examples, row.bytes_up, row.bytes_down) == (10 * 8 * 40, 10 * 4000 * 40, 10 * 4000 * 40)


def test_the_squares_beside_the_update_and_releases_at_the_end_are_paid_for():
    plain = price(question(LOCAL), FIRST, 40)
    beside = replace(question(LOCAL), has_squares=lambda _: True)
    assert price(beside, FIRST, 40).mean_noise == pytest.approx(plain.mean_noise * math.sqrt(1.01))
    last = price(question(LOCAL, besides=((1.0, 3.0, 7),)), FIRST, 40)
    accountant = dp_accounting.pld.PLDAccountant()
    for q, relative, steps in ((1 / 8, 1.0, 40), (1.0, 3.0, 7)):
        noise = dp_accounting.GaussianDpEvent(relative * last.noise_multiplier)
        accountant.compose(dp_accounting.PoissonSampledDpEvent(q, noise), steps)
    assert 0.97 * 3 < accountant.get_epsilon(1e-5) <= 3


def test_cohorts_double_at_client_level_and_batches_then_cohorts_at_example_level():
    assert [phase.cohort_size for phase in ladder(question(CENTRAL))] == [1, 2, 5, 10, 20, 40]
    sizes = [(phase.cohort_size, phase.client_batch_size) for phase in ladder(question(LOCAL))]
    assert sizes == [*((10, b) for b in (1, 2, 4, 8, 16, 32)), (10, None), (20, None), (40, None)]
    few = question(SHARED, Phase("fixed", 6, None))
    assert min(phase.cohort_size for phase in ladder(few)) >= 5, "fewer clients are not released"
    everyone = replace(question(CENTRAL, Phase("fixed", 40, 8)), moves_cohort=False)
    assert [phase.cohort_size for phase in ladder(everyone)] == [40]


@pytest.mark.parametrize(("configured", "most"), [(1, 1), (7, 7), (100, 1000), (3, 50)])
def test_doubling_ends_with_everything_and_has_the_configured(configured, most):
    found = doubling(configured, most)
    assert found[-1] == most and configured in found and found == sorted(set(found)) and found[0] >= 1


def test_the_knee_in_theory_and_as_measured():
    asked = question(CENTRAL, Phase("fixed", 10, 8), clients=4000, rounds=100)
    assert knee(asked, 100) == pytest.approx(4000 * math.sqrt(3 / 100))
    assert knee(asked, 1) == 4000, "never more than there are"
    here = [
        price(asked, phase, 100) for phase in ladder(replace(asked, terms=replace(asked.terms, first=Phase("f", 500))))
    ]
    found = measured_knee(here)
    place = here.index(found)
    gains = [after.mean_noise / before.mean_noise for before, after in itertools.pairwise(here)]
    assert all(gain <= 0.91 for gain in gains[:place]) and gains[place] > 0.9
    assert 0.5 < found.batch / knee(asked, 100) < 4


def test_a_cohort_is_balanced_where_energy_of_privacy_noise_is_that_of_sampling():
    here = [row for row in rows(CENTRAL) if row.rounds == 40]
    for spread in (0.5, 5.0, 50.0):
        quiet = [row for row in here if 1000 * row.mean_noise**2 <= spread**2 / row.batch]  # d coordinates; tr / B
        assert balanced(here, spread, 1000) == (quiet[0] if quiet else None)


def test_what_the_mechanism_cannot_split_is_left_out():
    follows = replace(CENTRAL, clip_quantile=0.5, count_noise=0.6)
    found = rows_of(question(follows))
    assert found and all(row.noise_multiplier < 1.2 for row in found)
