import math

from hypothesis import given
from hypothesis import strategies as st


def test_no_neighbour_costs_less():
    from simulations.tuning import tuned

    @given(st.floats(-5, 5), st.floats(1.2, 4.0))
    def holds(log_best, factor):
        def cost(rate):
            return abs(math.log(rate) - log_best)

        found = tuned(cost, start=1.0, factor=factor, runs=200)
        assert cost(found) <= min(cost(found * factor), cost(found / factor)) + 1e-9

    holds()


def test_a_rate_that_diverges_sends_the_walk_down():
    from simulations.tuning import tuned

    tried = []

    def cost(rate):
        tried.append(rate)
        return math.nan if rate > 0.1 else abs(math.log2(rate / 0.0625))

    assert tuned(cost, start=1.0, runs=20) == 0.0625
    assert len(tried) == len(set(tried))


def test_the_walk_ends_where_it_is_when_it_has_had_its_runs():
    from simulations.tuning import tuned

    tried = []
    assert tuned(lambda rate: tried.append(rate) or -rate, start=1.0, runs=4) == 4.0
    assert len(tried) == 4
