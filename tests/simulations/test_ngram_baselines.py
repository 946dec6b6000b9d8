import math

import numpy as np
import pytest

from simulations.ngram_baselines import ngram_nats


def test_by_hand():
    # Counted: a a b a, then b is scored. Order 0: (1 + 2/2) / (4 + 2), with t = 2 letters and 1/2 below.
    nats = ngram_nats([(np.array([0, 0, 1, 0]), np.array([1]))], symbols=2, max_order=1)
    p0 = (1 + 2 * 0.5) / (4 + 2)
    # After a: once a, once b.
    assert nats == pytest.approx([-math.log(p0), -math.log((1 + 2 * p0) / (2 + 2))])


def test_a_cycle_is_learnt_from_its_contexts_and_roles_do_not_run_into_each_other():
    cycle = np.tile([0, 1, 2], 200)
    order0, order1, _ = ngram_nats([(cycle, cycle[:30]), (cycle, cycle[:30])], symbols=3, max_order=2)
    assert order0 == pytest.approx(math.log(3), rel=0.01) and order1 < 0.02
