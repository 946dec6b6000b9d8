"""Integers with integer noise: the sensitivity of rounding, the law of the noise, and what it costs.

Expectations are exact sums over one-dimensional Skellam distributions, brute force over changes, or written out here.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import ive, logsumexp

from fedbatch.cli import app
from fedbatch.privacy import epsilon, lattice
from fedbatch.privacy.accounting import WHOLE, divergences
from fedbatch.privacy.lattice import Grid, Lattice, sensitivities, skellam
from fedbatch.privacy.randomness import Randomness
from fedbatch.privacy.release import release
from tests.conftest import run
from tests.privacy.releases import contribution, with_noise

INTEGERS = ("privacy.quantum=0.001", "privacy.min_clients=4", "privacy.colluders=1", "cohort_size=8")
LOCAL = ["client_work=local_sgd", "client_work.epochs=null", "client_work.steps=1"]
ORDERS = (2, 3, 5, 10, 32)


def change(x, v, u):
    """By how much (d,) the rounded sum moves where one unit's contribution v is taken away, with the same draws."""
    return np.floor(x + u) - np.floor(x - v + u)


# ---- Sensitivity


@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize("length", [0.3, 1.0, 7.0])
def test_no_rounded_change_is_longer_than_the_bound_that_always_holds(size, length):
    rng = np.random.default_rng(size)
    for _ in range(2000):
        v = rng.normal(size=size) * (rng.random(size) < rng.random())
        v *= length / max(np.linalg.norm(v), 1e-9)
        delta = change(rng.normal(size=size) * 100, v, rng.random(size))
        assert delta @ delta <= (length + size**0.5) ** 2 + 1e-9
        assert abs(delta).sum() <= min(delta @ delta, size**0.5 * (delta @ delta) ** 0.5) + 1e-9
    assert sensitivities(length, size)[0] <= (length + size**0.5) ** 2 * (1 + 1e-12)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_but_for_the_stated_failures_no_change_is_longer_than_the_bound(monkeypatch, share):
    monkeypatch.setattr(lattice, "FAILURE", 0.01)
    rng, size = np.random.default_rng(0), 400
    v = np.where(np.arange(size) < share * size, 0.5, 0.0)  # half a step: as much as rounding can add
    length = np.linalg.norm(v)
    x = rng.normal(size=size) * 30
    found = np.array([np.square(change(x, v, rng.random(size))).sum() for _ in range(5000)])
    square, absolute = sensitivities(float(length), size)
    assert (found > square).mean() <= 0.02, "two failures of a hundredth each"
    assert found.mean() > 1.8 * length**2, "a bound that forgets rounding is passed on average"
    assert absolute == pytest.approx(min(size**0.5 * square**0.5, square))
    # written out: |v|^2 + d/4 + sqrt(2 ln 100) (|v| + sqrt(d)/2)
    assert square == pytest.approx(length**2 + 100 + (2 * math.log(100)) ** 0.5 * (length + 10))


# ---- Cost


def log_skellam(k, variance):
    with np.errstate(divide="ignore"):
        return np.log(ive(np.abs(k), variance))


def exact(shift, variance, order, q=1.0):
    """The larger Renyi divergence of one coordinate, of either direction, moved by ``shift`` with probability q."""
    k = np.arange(-int(40 * variance**0.5) - 90, int(40 * variance**0.5) + 91 + shift)
    still, moved = log_skellam(k, variance), log_skellam(k - shift, variance)
    mixed = np.logaddexp(still + (math.log1p(-q) if q < 1 else -np.inf), moved + math.log(q))
    seen = np.isfinite(still) & np.isfinite(mixed)
    a, b = still[seen], mixed[seen]
    return max(logsumexp(order * p - (order - 1) * r) for p, r in ((a, b), (b, a))) / (order - 1)


@pytest.mark.parametrize("quantum", [1.0, 0.25, 1 / 16, 1 / 64])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0])
def test_the_noise_costs_no_more_than_is_accounted(quantum, sigma):
    variance = Lattice(quantum, 32).deviation(sigma, 1) ** 2
    longest = math.floor(1 / quantum + 1)  # of one coordinate after rounding
    for order in ORDERS:
        for shift in {1, max(1, longest // 2), longest}:
            assert exact(shift, variance, order) <= order / (2 * sigma**2) * (1 + 1e-9)


@pytest.mark.parametrize(("q", "sigma"), [(0.01, 0.7), (0.2, 1.0), (0.5, 2.0)])
def test_sampling_amplifies_in_both_directions_as_accounted(q, sigma):
    variance = Lattice(1 / 16, 32).deviation(sigma, 1) ** 2
    accounted = divergences([(q, sigma, 1)], WHOLE)
    at = {order: accounted[index] for order, index in zip(ORDERS, map(index_of, ORDERS), strict=True)}
    for order in ORDERS:
        assert exact(17, variance, order, q) <= at[order] * (1 + 1e-9)


def index_of(order):
    import dp_accounting.rdp

    return list(dp_accounting.rdp.RdpAccountant().orders).index(order)


def test_only_whole_orders_are_accounted():
    accounted, every = divergences([(0.1, 1.0, 3)], WHOLE), divergences([(0.1, 1.0, 3)])
    whole = np.isfinite(accounted)
    assert whole.sum() == 66 and np.array_equal(accounted[whole], every[whole])
    assert accounted[index_of(2)] < np.inf and accounted[index_of(1.5)] == accounted[index_of(10.9)] == np.inf


def test_it_costs_more_than_a_gaussian_and_little_on_a_fine_grid():
    for size in (1, 1000, 10**6):
        for quantum in (1.0, 2.0**-6, 2.0**-10, 2.0**-14):
            for sigma in (0.3, 1.0, 8.0):
                assert Lattice(quantum, 32).noise(sigma, size) >= sigma
    assert Lattice(2.0**-10, 32).noise(1.0, 1000) < 1.01
    assert Lattice(2.0**-14, 32).noise(1.0, 10**6) < 1.01
    phases = [(0.05, 1.0, 100)]
    assert epsilon(phases, 1e-5) < epsilon(phases, 1e-5, "rdp") <= epsilon(phases, 1e-5, WHOLE)


# ---- Law of the noise


@pytest.mark.parametrize("variance", [0.4, 6.0, 300.0])
@pytest.mark.parametrize("generator", ["philox", "chacha20"])
def test_the_noise_is_skellam(variance, generator):
    source, count = Randomness(b"0" * 32, "run", generator), 40_000
    draws = source.skellam(count, variance, "noise", 1)
    assert (draws == np.round(draws)).all() and draws.dtype == np.float64
    values = np.arange(-math.ceil(3 * variance**0.5), math.ceil(3 * variance**0.5) + 1)
    law = stats.skellam(variance / 2, variance / 2)
    inner = law.pmf(values[1:-1])
    expected = count * np.array([law.cdf(values[0]), *inner, law.sf(values[-1] - 1)])
    clipped = np.clip(draws, values[0], values[-1])
    seen = np.array([(clipped == value).sum() for value in values])
    assert stats.chisquare(seen, expected * count / expected.sum()).pvalue > 1e-6


def test_shares_add_up():
    source, variance = Randomness(b"0" * 32, "run"), 900.0
    shares = np.stack([source.skellam(20_000, variance / 8, "noise", client) for client in range(8)])
    assert abs(np.corrcoef(shares)[~np.eye(8, dtype=bool)]).max() < 6 / 20_000**0.5
    total = shares.sum(axis=0)
    assert total.var() / variance == pytest.approx(1, abs=6 * (2 / 20_000) ** 0.5)
    assert stats.kstest(total + source.uniform(20_000, "dither") - 0.5, "norm", (0, 30)).pvalue > 1e-4


def test_the_ends_of_the_distribution():
    lowest, highest = skellam(100.0, np.array([0.0, 1 - 2.0**-53]))
    assert -100 < lowest < -75 and 75 < highest < 100
    assert skellam(100.0, np.array([0.5]))[0] == 0


def test_the_widest_noise_that_is_allowed_is_drawn_and_no_wider():
    uniform = (np.arange(20_000) + 0.5) / 20_000
    draws = skellam(lattice.MOST_STEPS**2, uniform)
    assert draws.mean() == pytest.approx(0, abs=1) and draws.std() == pytest.approx(30_000, rel=1e-3)
    assert stats.kstest(draws, "norm", (0, 30_000)).statistic < 1e-3
    with pytest.raises(ValueError, match="at most"):
        skellam(4.0 * lattice.MOST_STEPS**2, uniform)


# ---- Integers


def test_rounding_is_without_bias_and_moves_no_whole_number():
    grid = Grid(0.5, np.array([0.25]), 10.0, 32)
    rng, x = np.random.default_rng(0), torch.tensor([0.1, -0.65, 3.0], dtype=torch.float64)
    found = []
    for _ in range(20_000):
        update, extras = grid.rounded((x, np.array([0.3])), rng.random(4))
        found.append([*update.tolist(), *extras])
    assert np.mean(found, axis=0) == pytest.approx([0.2, -1.3, 6.0, 1.2], abs=5 * 0.5 / 20_000**0.5)
    assert set(np.array(found)[:, 2]) == {6.0}


def test_sums_modulo_are_sums_in_any_order():
    grid, rng = Grid(1.0, np.ones(0), 1.0, 12), np.random.default_rng(1)
    parts = torch.from_numpy(rng.integers(-900, 900, size=(20, 50)).astype(float))
    parts[:, 25:] -= parts[:, 25:].mean(dim=0).round()
    whole = parts.sum(dim=0)
    wrapped = grid.wrapped((parts.clone(), np.ones(0)))[0].sum(dim=0)
    total = grid.decoded((wrapped, np.ones(0)))[0]
    inside = whole.abs() < 2**11
    assert torch.equal(total[inside], whole[inside]) and bool((total.abs() <= 2**11).all())


@pytest.mark.parametrize("bits", [6, 12, 18])
def test_enough_bits_are_enough_and_few_more_than_that(bits):
    rng, of = np.random.default_rng(2), Lattice(2.0 ** -(bits - 4), 48)
    deviation = of.deviation(1.0, 10)
    need = of.bits_needed(batch=100.0, most=1000.0, clients=10, deviation=deviation, size=10)
    largest = max(
        rng.binomial(1000, 0.1) / of.quantum + abs(skellam(deviation**2, rng.random(100))).max() for _ in range(200)
    )
    assert largest < 2 ** (need - 1) < 8 * largest


# ---- Releases and runs


@pytest.fixture
def task_of(make_task):
    return lambda *options: make_task("example_distributed", "client_batch_size=8", *INTEGERS, *options)


def replies(loaded, **options):
    return [contribution(loaded, [client], **options) for client in range(8)]


def test_replies_are_integers_that_add_up_to_the_same_bits_in_any_order(task_of):
    loaded = task_of("privacy.bits=24")
    parts = replies(loaded)
    for part in parts:
        assert part.update_sum.dtype == torch.float64 and torch.equal(part.update_sum, part.update_sum.round())
        assert bool((part.update_sum.abs() <= 2**23).all())
    forth = sum(p.update_sum for p in parts)
    back = sum(p.update_sum for p in reversed(parts))
    assert torch.equal(forth, back)


def test_the_released_sum_is_that_of_numbers_up_to_noise(task_of):
    loaded, clients = task_of(), np.arange(8)
    phase = loaded.controller.phases[0]
    quiet = contribution(with_noise(loaded, 0.0), clients)
    plain = quiet.update_sum.double(), quiet.extra_sums.numpy()
    parts = replies(loaded)
    sums = sum(p.update_sum for p in parts), sum(p.extra_sums.numpy() for p in parts)
    noised = release(loaded.privacy, phase, 1.0, sums, clients, (0, "", 0), True)
    size, steps = plain[0].numel(), Lattice(0.001, 32).deviation(1.0, plain[0].numel())
    deviation = (1 + 0.01) ** 0.5 * steps * 0.001 * (8 / 3) ** 0.5
    z = (noised.mean * noised.batch - plain[0]).numpy() / deviation
    assert 1e-6 < stats.chi2.sf(float(z @ z), size) < 1 - 1e-6
    assert noised.noise.update == pytest.approx(deviation)
    assert abs(noised.estimate.trace + noised.estimate.grad_sq - plain[1][0] / noised.batch) < 60 / noised.batch


def test_squared_lengths_have_ten_times_the_noise_on_the_same_grid(task_of):
    loaded = task_of()
    grid = loaded.privacy.grid(loaded.controller.phases[0], 0.5)
    assert grid.update == pytest.approx(0.001 * 0.5 * (1 + 0.01) ** 0.5)
    assert grid.extras == pytest.approx([10 * 0.001 * 0.25 * (1 + 0.01) ** 0.5])
    # A unit of length C with squared length C^2 is 1 / quantum steps long.
    assert (0.5 / grid.update) ** 2 + (0.25 / grid.extras[0]) ** 2 == pytest.approx(1e6)


@pytest.mark.parametrize("executor", ["vmap", "loop"])
def test_executors_agree_but_for_a_step(task_of, executor):
    loaded = task_of()
    one, other = (contribution(loaded, np.arange(8), executor=name).update_sum for name in ("fused", executor))
    assert float((one - other).abs().max()) <= 1 and float((one != other).double().mean()) < 0.02


def test_rounding_is_drawn_anew_in_each_release(task_of, monkeypatch):
    loaded, seen = task_of(), []
    original = Randomness.uniform

    def spy(self, count, purpose, *what):
        if purpose == "rounding":
            seen.append(what)
        return original(self, count, purpose, *what)

    monkeypatch.setattr(Randomness, "uniform", spy)
    for options in ({}, {"round_": 1}, {"params": loaded.new_model().params * 1.01}):
        contribution(loaded, np.arange(8), **options)
    contribution(loaded, np.arange(7))
    assert len(set(seen)) == 4


RUN = ("dataset=digits", "population=20", "client_batch_size=8", "rounds=4", "model.width=8", "executor=fused")


def test_a_run_says_its_noise_and_its_accountant(make_config):
    _, summary, _ = run(make_config("privacy=example_distributed", *INTEGERS, "privacy.bits=30", "rounds=3"))
    told = summary["privacy"]
    assert told["noise"] == "independent over rounds, Skellam on integers modulo 2^30, in steps of 0.001 clip norms"
    assert told["accountant"] == WHOLE and any("probability 2e-30" in reason for reason in told["not_covered"])
    phases = [(p["sample_rate"], p["noise_multiplier"], p["steps"]) for p in told["schedule"]]
    assert summary["epsilon"] == pytest.approx(epsilon(phases, told["delta"], WHOLE)) and summary["epsilon"] <= 8
    assert told["epsilon_rdp"] == pytest.approx(summary["epsilon"])


def test_an_adaptive_run_is_filtered_at_a_whole_order(make_task):
    adaptive = ("controller=noise_scale_switch", "privacy.target_epsilon=3", "privacy.noise_multiplier=null")
    loaded = make_task("example_distributed", *INTEGERS, *adaptive, "rounds=20")
    assert loaded.privacy.calibration.order % 1 == 0


def test_resuming_goes_on_bit_for_bit(make_config):
    settings = ("privacy=example_distributed", "controller=fixed", *INTEGERS, "checkpoint_every_rounds=1")
    mechanism = (*settings, "privacy.noise_multiplier=1", "privacy.target_epsilon=null")
    long = run(make_config(*mechanism, folder="long"))[2]
    short = make_config(*mechanism, "rounds=2", folder="short")
    run(short)
    resumed = run(make_config(*mechanism, f"resume={short.run_dir}", folder="short"))[2]
    assert torch.equal(long.params, resumed.params) and long.ledger.releases == resumed.ledger.releases


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["privacy.quantum=2"], "privacy.quantum must be in (0, 1]"),
        (["privacy.bits=1"], "privacy.bits must be in [2, 48]"),
        (["privacy.bits=12"], "may need 20 bits, and there are 12; set privacy.bits=20 or privacy.quantum="),
        (["privacy.quantum=1e-7"], "has more steps than the 30,000 that can be drawn; set privacy.quantum="),
        (["privacy.accountant=pld"], "privacy.accountant=pld: the loss distribution of integer noise is not proven"),
        (LOCAL, "use client_work=fedsgd, or privacy.quantum=null"),
        (["client_holdout=0.2", "temperature=private"], "temperature: its sums are no integers"),
    ],
)
def test_refusals_are_one_line(tmp_path, capsys, monkeypatch, options, line):
    monkeypatch.setattr("sys.argv", ["fedbatch", *RUN, "privacy=example_distributed", *INTEGERS, *options])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        app.main()
    said = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == 2 and len(said) == 1
    assert line in said[0]


@pytest.mark.parametrize("short", ["privacy.bits=12", "privacy.quantum=1e-7"])
def test_the_remedy_is_enough(make_task, short):
    from fedbatch.core.errors import ConfigError

    with pytest.raises(ConfigError) as refused:
        make_task("example_distributed", *INTEGERS, short)
    remedies = str(refused.value).split("; set ")[1].split(" or ")
    for remedy in remedies:
        make_task("example_distributed", *INTEGERS, short, remedy)
    if short == "privacy.bits=12":
        bits = int(remedies[0].split("=")[1])
        with pytest.raises(ConfigError):
            make_task("example_distributed", *INTEGERS, f"privacy.bits={bits - 1}")


def test_with_no_noise_there_is_nothing_to_round(task_of):
    loaded = with_noise(task_of(), 0.0)
    assert loaded.privacy.grid(loaded.controller.phases[0], 1.0) is None
    silent = replace(loaded.privacy.mechanism, quantum=None)
    assert silent.lattice is None
