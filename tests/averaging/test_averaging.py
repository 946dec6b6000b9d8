"""Weights of averages against their definitions, summed up by hand."""

import numpy as np
import pytest

from fedbatch.averaging import EMA, Polynomial
from fedbatch.config.build import build
from fedbatch.core.errors import ConfigError


def averaged(rule, values, batches=None):
    found = 0.0
    for t, value in enumerate(values):
        weight = rule.weight(t, 1.0 if batches is None else batches[t])
        assert 0 < weight <= 1 and (t or weight == 1)
        found += weight * (value - found)
    return found


VALUES = np.random.default_rng(0).normal(size=50)


def test_ema_is_the_moving_average_once_the_beginning_is_forgotten():
    values = np.concatenate([np.zeros(400), VALUES])
    expected = 0.0
    for value in values:
        expected = 0.9 * expected + 0.1 * value
    assert averaged(EMA(0.9), values) == pytest.approx(expected, rel=1e-12)
    assert averaged(EMA(0.9), VALUES[:5]) == pytest.approx(VALUES[:5].mean()), "a plain mean at first"


def test_a_batch_of_k_counts_as_k_rounds():
    """Rounds of two batches whose parameters stand still look back as far as single ones do."""
    values = np.repeat(VALUES, 2)
    twice = averaged(EMA(0.9), np.concatenate([np.zeros(400), VALUES]), [1.0] * 400 + [2.0] * 50)
    assert twice == pytest.approx(averaged(EMA(0.9), np.concatenate([np.zeros(400), values])), rel=1e-9)


@pytest.mark.parametrize("power", [0, 1, 3])
def test_polynomial_weights_grow_as_the_power(power):
    """The weight of round t is prod (1 - w) w, which is Gamma(t + power) / Gamma(t) up to a constant."""
    rising = np.array([np.prod([t + k for k in range(1, power + 1)]) if power else 1.0 for t in range(50)])
    expected = (rising * VALUES).sum() / rising.sum()
    assert averaged(Polynomial(power), VALUES) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("rule", "said"), [({"decay": 1.0}, "decay"), ({"decay": -0.1}, "decay")])
def test_bad_decays_are_refused(rule, said):
    with pytest.raises(ConfigError, match=f"averaging.*{said}"):
        build("averaging", {"_target_": "fedbatch.averaging.EMA", **rule})


def test_a_negative_power_is_refused():
    with pytest.raises(ConfigError, match="power must be >= 0"):
        build("averaging", {"_target_": "fedbatch.averaging.Polynomial", "power": -1})
