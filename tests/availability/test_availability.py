"""Who is there: frequencies against closed forms, states against a forward simulation, boundaries, no vain waiting."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from fedbatch.availability import Diurnal, Markov, Trace
from fedbatch.availability.periods import last_turn
from fedbatch.core.random import key, uniforms

CLIENTS = np.arange(40)


def trace(tmp_path, rows, **options):
    pl.DataFrame(rows, schema=["client", "start", "end"], orient="row").write_parquet(tmp_path / "trace.parquet")
    return Trace(str(tmp_path / "trace.parquet"), **options)


def test_each_client_has_one_window_a_day_of_its_share():
    day = Diurnal(100.0, share=0.3, start=0.2, spread=0.5)
    times = np.arange(0, 1000, 0.25)
    there = np.array([day.is_there(CLIENTS, t, seed=3) for t in times])
    assert there.mean(axis=0) == pytest.approx(0.3, abs=0.25 / 100 + 1e-9)
    opens = (there[1:] & ~there[:-1]).sum(axis=0)
    assert ((opens >= 9) & (opens <= 10)).all()
    first = np.array([times[1:][there[1:, k] & ~there[:-1, k]][0] for k in CLIENTS]) % 100
    assert ((first >= 20) & (first <= 70.25)).all()
    assert stats.kstest((first - 20) / 50, "uniform").pvalue > 0.01  # of a fixed seed


@pytest.mark.parametrize(("arrive", "leave"), [(0.2, 0.05), (0.5, 0.5), (0.9, 0.7), (1.0, 0.0)])
def test_a_chain_moves_by_its_chances_and_is_stationary_from_the_start(arrive, leave):
    chain, clients = Markov(arrive, leave, 10.0), np.arange(2000)
    states = np.array([chain.is_there(clients, 10.0 * s, seed=1) for s in range(6)])
    share = arrive / (arrive + leave)
    for row in states:  # 2000 independent clients, at every step
        assert abs(row.mean() - share) <= 4 * np.sqrt(share * (1 - share) / 2000)
    for now, chance in ((False, arrive), (True, 1 - leave)):
        then = states[1:][states[:-1] == now]
        if len(then):
            assert abs(then.mean() - chance) <= 4 * np.sqrt(chance * (1 - chance) / len(then)) + 1e-12


@pytest.mark.parametrize(("arrive", "leave"), [(0.02, 0.03), (0.9, 0.8)])
def test_a_chain_is_the_one_that_runs_forward_and_equal_in_any_order(arrive, leave):
    chain, steps = Markov(arrive, leave, 1.0), np.arange(-4000, 60)
    u = uniforms(key(7, "availability"), CLIENTS[None, :], steps[:, None])
    for start in (False, True):  # what it was 4000 steps ago does not matter
        state, forward = np.full(40, start), {}
        for step, row in zip(steps, u, strict=True):
            state = np.where(state, row < 1 - leave, row < arrive)
            forward[step] = state
        order = np.random.default_rng(0).permutation(60)
        for step in order:
            some = np.sort(np.random.default_rng(step).choice(40, 9, replace=False))
            assert np.array_equal(chain.is_there(some, step + 0.5, 7), forward[step][some])
    each = np.arange(40) % 7 * 1.0  # a time for each client
    assert np.array_equal(chain.is_there(CLIENTS, each, 7), [forward[int(t)][k] for k, t in enumerate(each)])


def test_intervals_of_a_trace_hold_their_start_and_not_their_end(tmp_path):
    found = trace(tmp_path, [(2, 10.0, 20.0), (0, 5.0, 6.0), (2, 20.0, 21.0), (2, 3.0, 4.0)])
    clients = np.array([0, 1, 2])
    expected = {2.9: [], 3: [2], 4: [], 5: [0], 6: [], 9.99: [], 10: [2], 19.9: [2], 20: [2], 21: [], 1e9: []}
    for second, there in expected.items():
        assert clients[found.is_there(clients, second, 0)].tolist() == there, second
    assert found.is_there(clients, np.array([5.5, 12.0, 12.0]), 0).tolist() == [True, False, True]
    assert found.next_seconds(clients, 0.0, 0) == 3.0 and found.next_seconds(np.array([0]), 0.0, 0) == 5.0
    assert found.next_seconds(clients, 12.5, 0) == 12.5
    assert found.next_seconds(clients, 21.0, 0) == found.next_seconds(np.array([1]), 0.0, 0) == np.inf


def test_a_trace_repeats(tmp_path):
    found, clients = trace(tmp_path, [(0, 0.0, 1.0), (1, 8.5, 10.0)], repeat_seconds=10.0), np.arange(2)
    for turn in range(50):
        assert found.is_there(clients, 10.0 * turn, 0).tolist() == [True, False]
        assert found.is_there(clients, 10.0 * turn + 9.75, 0).tolist() == [False, True]
        assert found.next_seconds(clients, 10.0 * turn + 1, 0) == 10.0 * turn + 8.5
        assert found.next_seconds(clients[:1], 10.0 * turn + 1, 0) == 10.0 * turn + 10


@pytest.mark.parametrize("seed", range(40))
def test_somebody_is_there_when_it_was_said_and_nobody_before(tmp_path, seed):
    rng = np.random.default_rng(seed)
    clients = np.sort(rng.choice(40, 3, replace=False))
    period, wide = float(rng.choice([0.1, 0.7, 86400.0, np.pi])), float(rng.uniform(1e-3, 0.05))
    rows = [(int(k), *np.sort(rng.uniform(0, period, 2))) for k in clients]
    for model in (
        Diurnal(period, wide, float(rng.random()), 0.1),
        Markov(0.01, 0.9, period),
        trace(tmp_path, rows, repeat_seconds=period),
    ):
        now = 0.0
        for _ in range(30):
            later = model.next_seconds(clients, now, seed)
            assert later >= now and model.is_there(clients, later, seed).any()
            between = np.linspace(now, later, 20, endpoint=False)
            if later > now:
                assert not any(model.is_there(clients, t, seed).any() for t in between)
            now = later + period * rng.uniform(0, 2) if rng.random() < 0.7 else later


def test_turns_are_exact_at_their_own_times():
    for period in (0.1, 1 / 3, 7.3, 86400.1):
        for start in (0.0, 0.123, 5 / 7):
            n = np.arange(20_000)
            at = start + n * period
            assert np.array_equal(last_turn(at, start, period), n)
            assert np.array_equal(last_turn(np.nextafter(at, -1), start, period), n - 1)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([(0, 5.0, 5.0)], "0 <= start < end .*client 0: 5 to 5"),
        ([(-1, 0.0, 5.0)], "client >= 0"),
        ([(1, -2.0, 5.0)], "0 <= start"),
        ([(1, 0.0, 5.0), (1, 4.0, 6.0)], "intervals of client 1 overlap; join them"),
        ([(1, 0.0, float("nan"))], "column end of .* not finite"),
        ([(1, 0.0, 1.0), (1, None, 2.0)], "column start of .* gaps"),
        ([(2**63, 0.0, 2.0)], "column client of .* gaps"),
        ([(0.5, 0.0, 2.0)], "column client of .* whole numbers"),
        ([("a", 0.0, 2.0)], "column client of .* whole numbers"),
    ],
)
def test_a_wrong_trace_is_refused(tmp_path, rows, words):
    with pytest.raises(ValueError, match=f"availability.file: .*{words}"):
        trace(tmp_path, rows)


def test_a_wrong_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        Trace(str(tmp_path / "none.parquet"))
    (tmp_path / "words.parquet").write_text("not Parquet")
    with pytest.raises(ValueError, match="neither a Parquet file nor"):
        Trace(str(tmp_path / "words.parquet"))
    (tmp_path / "few.csv").write_text("client,start\n0,1\n")
    with pytest.raises(ValueError, match="has no column end; it has client, start"):
        Trace(str(tmp_path / "few.csv"))
    (tmp_path / "empty.csv").write_text("client,start,end\n")
    with pytest.raises(ValueError, match="availability.file"):
        Trace(str(tmp_path / "empty.csv"))
    with pytest.raises(ValueError, match="<= repeat_seconds"):
        trace(tmp_path, [(0, 0.0, 20.0)], repeat_seconds=10.0)
    with pytest.raises(ValueError, match="step_seconds longer"):
        Markov(arrive=0.0)
    with pytest.raises(ValueError, match="sum of at most"):
        Markov(arrive=1.0, leave=1.0)
