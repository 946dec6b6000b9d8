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
