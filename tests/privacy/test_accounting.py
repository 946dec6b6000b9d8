"""Against reference vectors, a closed form, and properties that any right accountant has."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from fedbatch.privacy import epsilon, noise_multiplier
from fedbatch.privacy.accounting import best_order, divergences, rdp_epsilon

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/epsilon.json").read_text())
CASES = GOLDEN["cases"]


def phases_of(case):
    return [(p["q"], p["sigma"], p["steps"]) for p in case["phases"]]


@pytest.mark.parametrize("case", CASES, ids=[c["name"] for c in CASES])
def test_reference_values(case):
    phases = phases_of(case)
    assert epsilon(phases, case["delta"]) == pytest.approx(case["epsilon"]["dp_accounting_pld"], rel=1e-3)
    rdp = epsilon(phases, case["delta"], "rdp")
    assert rdp == pytest.approx(case["epsilon"]["dp_accounting_rdp"], rel=1e-6)
    assert rdp_epsilon(divergences(phases), case["delta"]) == pytest.approx(rdp, rel=1e-9)


def test_order_of_phases_does_not_matter_and_averages_are_something_else():
    (case,) = [c for c in CASES if c["name"] == "S1_small_then_large"]
    phases, value = phases_of(case), case["epsilon"]["dp_accounting_pld"]
    assert epsilon(phases[::-1], case["delta"]) == pytest.approx(epsilon(phases, case["delta"]), rel=1e-6)
    wrong = case["WRONG_naive_mean_q_mean_sigma"]
    averaged = epsilon([(wrong["q"], wrong["sigma"], wrong["steps"])], case["delta"])
    assert averaged == pytest.approx(wrong["dp_accounting_pld"], rel=1e-3) and averaged < 0.95 * value


def test_full_participation_has_a_closed_form():
    # Balle and Wang 2018: delta(eps) of a Gaussian mechanism; 100 steps at sigma 20 are one at sigma 2.
    eps = epsilon([(1.0, 20.0, 100)], 1e-5)
    delta = norm.cdf(0.25 - eps * 2) - math.exp(eps) * norm.cdf(-0.25 - eps * 2)
    assert delta == pytest.approx(1e-5, rel=2e-3)


def test_nothing_spent_costs_nothing_and_no_noise_costs_everything():
    assert epsilon([], 1e-5) == epsilon([(0.1, 1.0, 0)], 1e-5) == epsilon([(0.0, 0.0, 5)], 1e-5) == 0
    assert epsilon([(0.1, 0.0, 1)], 1e-5) == math.inf


@pytest.mark.parametrize(
    ("phases", "delta", "accountant", "message"),
    [
        ([(1.1, 1.0, 1)], 1e-5, "pld", "q in"),
        ([(0.1, -1.0, 1)], 1e-5, "pld", "noise_multiplier >= 0"),
        ([(0.1, 1.0, 1.5)], 1e-5, "pld", "whole number"),
        ([(0.1, 1.0, 1)], 0.0, "pld", "delta must be in"),
        ([(0.1, 1.0, 1)], 1e-5, "gdp", "accountant must be one of auto, pld, rdp"),
    ],
)
def test_what_makes_no_sense_is_refused(phases, delta, accountant, message):
    with pytest.raises(ValueError, match=message):
        epsilon(phases, delta, accountant)


# sigma at (N 50,000, delta 1e-5), from the specification of DP at scale
KNOWN_NOISE = [(1, 1000, 256, 0.949), (8, 1000, 4096, 1.73)]


@pytest.mark.parametrize(("target", "steps", "batch", "sigma"), KNOWN_NOISE)
def test_noise_for_a_target(target, steps, batch, sigma):
    factor = noise_multiplier(target, 1e-5, [(batch / 50_000, 1.0, steps)])
    assert factor == pytest.approx(sigma, rel=2e-3)
    assert 0.999 * target < epsilon([(batch / 50_000, factor, steps)], 1e-5) <= target


@pytest.mark.slow
def test_noise_for_a_schedule_scales_all_phases_alike():
    doubling = [(256 * 2**i / 50_000, 1.0, 400) for i in range(5)]
    assert noise_multiplier(4, 1e-5, doubling) == pytest.approx(2.208, rel=1e-3)
    relative = [(q, 2.0**i, steps) for i, (q, _, steps) in enumerate(doubling)]
    assert noise_multiplier(4, 1e-5, relative, "rdp") == pytest.approx(0.585, rel=0.1)
    with pytest.raises(ValueError, match="relative noise > 0"):
        noise_multiplier(4, 1e-5, [(0.1, 0.0, 10)])


@settings(max_examples=5, deadline=None)
@given(st.floats(0.01, 0.5), st.floats(0.6, 5.0), st.integers(1, 300))
def test_more_of_anything_costs_more_and_renyi_is_above(q, sigma, steps):
    def cost(*phase):
        return epsilon([phase], 1e-5, "rdp")

    assert cost(q, sigma, steps) <= cost(q, sigma, 2 * steps) <= cost(q, sigma / 1.3, 2 * steps)
    assert cost(q, sigma, steps) <= cost(min(1.0, 1.5 * q), sigma, steps)
    total = divergences([(q, sigma, steps)])
    order = best_order(total, 1e-5)
    assert rdp_epsilon(total, 1e-5, order) == pytest.approx(rdp_epsilon(total, 1e-5))
