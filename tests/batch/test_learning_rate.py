import math

import pytest

from fedbatch.batch.learning_rate import LearningRate


@pytest.mark.parametrize(("rule", "factor"), [("constant", 1.0), ("sqrt", 4.0), ("linear", 16.0)])
def test_fixed_rules(rule, factor):
    assert LearningRate(rule=rule, max_factor=100).batch_factor(1024, 64, 100.0) == pytest.approx(factor)


def test_power_rule():
    rate = LearningRate(rule="power", exponent=0.75, max_factor=100)
    assert rate.batch_factor(1024, 64, 100.0) == pytest.approx(8.0)
    with pytest.raises(ValueError, match="exponent must be in"):
        LearningRate(rule="power", exponent=1.5)


def test_gain_rule_is_the_ratio_of_optimal_rates():
    """eps(B) = eps_max / (1 + N/B): at N = 192, from B = 64 (1/4 of eps_max) to B = 192 (1/2) doubles."""
    rule = LearningRate(rule="gain", max_factor=100)
    assert rule.batch_factor(192, 64, 192.0) == pytest.approx(2.0)
    assert rule.batch_factor(1e12, 64, 192.0) == pytest.approx(4.0)
    assert rule.batch_factor(64, 64, 192.0) == 1.0
    assert rule.batch_factor(1024, 64, None) == 1.0


def test_cap():
    assert LearningRate(rule="linear", max_factor=3).batch_factor(1024, 64, None) == 3


def test_warm_up_and_cosine():
    rate = LearningRate(warmup_rounds=4, decay="cosine")
    assert rate.schedule_factor(0, 100) == pytest.approx(0.25)
    assert rate.schedule_factor(50, 100) == pytest.approx(0.5)
    assert LearningRate().schedule_factor(77, 100) == 1.0


def test_blend_after_a_switch():
    rate = LearningRate(switch_warmup_rounds=4)
    assert [rate.blend(1.0, 3.0, age) for age in range(5)] == [1.5, 2.0, 2.5, 3.0, 3.0]
    assert LearningRate(switch_warmup_rounds=0).blend(1.0, 3.0, 0) == 3.0


def test_unknown_rule():
    with pytest.raises(ValueError, match="rule must be one of"):
        LearningRate(rule="cubic")


@pytest.mark.parametrize(
    ("decay", "factors"),
    [("none", [1, 1, 1, 1]), ("cosine", [1, 0.5, 0.146447, 0]), ("linear", [1, 0.5, 0.25, 0]), ("wsd", [1, 1, 0.5, 0])],
)
def test_decays(decay, factors):
    rate = LearningRate(decay=decay, decay_share=0.5)
    rounds = [rate.schedule_factor(round_, 100) for round_ in (0, 50, 75, 100)]
    shares = [rate.schedule_factor(7, 100, share=share) for share in (0.0, 0.5, 0.75, 1.3)]
    assert rounds == pytest.approx(factors, abs=1e-6) and shares == pytest.approx(factors, abs=1e-6)


@pytest.mark.parametrize("decay", ["cosine", "linear", "wsd"])
@pytest.mark.parametrize("factor", [0.9, 0.5, 0.125])
def test_share_at_is_the_inverse_of_the_decay(decay, factor):
    rate = LearningRate(decay=decay, decay_share=0.3)
    assert rate.schedule_factor(0, 1, share=rate.share_at(factor)) == pytest.approx(factor)


def test_warm_up_counts_rounds_whatever_the_clock_of_the_decay():
    assert LearningRate(warmup_rounds=4, decay="linear").schedule_factor(0, 9, share=0.5) == pytest.approx(0.25 * 0.5)


def test_growth_after_a_change_is_bounded():
    rate = LearningRate(max_growth=1.1)
    assert [rate.most(2.0, age) for age in range(3)] == pytest.approx([2.2, 2.42, 2.662])
    assert rate.most(1.0, 10**9) > 1e300 and LearningRate().most(1.0, 0) == math.inf


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"max_growth": 0.99}, "max_growth must be at least 1"),
        ({"max_growth": math.nan}, "max_growth"),
        ({"decay_share": 0.0}, "decay_share must be in"),
        ({"decay": "exponential"}, "decay one of"),
        ({"examples": 1000}, "examples is the length of a decay; set learning_rate.decay"),
        ({"examples": 0, "decay": "linear"}, "examples"),
    ],
)
def test_what_cannot_be_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        LearningRate(**kwargs)
