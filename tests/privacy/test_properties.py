"""Properties of every mechanism's release, against expectations that are computed here and not read from the code.

Noise is what a release has more than the same release without noise. Written out once: with extra coordinates of noise
multipliers s_i the update's is ``(sigma^-2 - sum s_i^-2)^-1/2``; squares have ten times the update's, a count its own.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from fedbatch.core.random import generator
from fedbatch.node.private import sample_examples, train_private
from fedbatch.privacy import epsilon
from fedbatch.privacy.accounting import divergences, rdp_epsilon
from fedbatch.privacy.ledger import Ledger, LedgerEntry
from fedbatch.privacy.randomness import fingerprint
from fedbatch.privacy.release import add_noise, release
from fedbatch.server import collect_private
from fedbatch.server.stopwatch import Stopwatch
from fedbatch.setup import task
from tests.conftest import run as run_config
from tests.privacy.releases import contribution, plan_of, with_noise
from tests.privacy.test_private_temperature import start

SIGMA, CLIENTS = 1.0, np.arange(8)
SQUARES = (1 + 0.01) ** 0.5
"""Factor on the update's noise where squares travel at ten times of it: s = sigma (1 + 1/100)^1/2."""
COUNT = 2.0
QUANTILE = (SIGMA**-2 - (2 * COUNT) ** -2) ** -0.5
"""Noise left for the rest where the count within the clip norm, of sensitivity 1/2, has noise COUNT."""
SIZE, STEPS = 64 * 64 + 64 + 64 * 10 + 10 + 2, 100.0
"""Coordinates with two extra ones, and steps of 0.01 in a clip norm."""
CHANGED = STEPS**2 + SIZE / 4 + (2 * np.log(1e30)) ** 0.5 * (STEPS + SIZE**0.5 / 2)
"""Squared length of what rounding makes of a change by a clip norm, but with probability 2e-30."""
INTEGERS = (CHANGED / STEPS**2) ** 0.5
"""Factor on integer noise, up to 1e-3 for its not being Gaussian."""
SHARES = ("privacy.min_clients=4", "privacy.colluders=1", "cohort_size=8")
FOLLOWS = ("privacy.clip_quantile=0.5", f"privacy.count_noise={COUNT}", "cohort_size=8")
MECHANISMS = {
    "example_local": ((), SQUARES * 8**0.5),  # eight clients, each with its own
    "example_distributed": (SHARES, SQUARES * (8 / 3) ** 0.5),
    "example_integers": ((*SHARES, "privacy.quantum=0.01"), SQUARES * INTEGERS * (8 / 3) ** 0.5),
    "example_central": ((), SQUARES),
    "client_central": ((), SQUARES),
    "client_quantile": (FOLLOWS, SQUARES * QUANTILE),
    "central_quantile": (FOLLOWS, SQUARES * QUANTILE),
    "local_quantile": (FOLLOWS, SQUARES * QUANTILE * 8**0.5),
    "distributed_quantile": ((*SHARES, *FOLLOWS[:2]), SQUARES * QUANTILE * (8 / 3) ** 0.5),
}
NAMES = {
    "client_quantile": "client_central",
    "central_quantile": "example_central",
    "local_quantile": "example_local",
    "distributed_quantile": "example_distributed",
    "example_integers": "example_distributed",
}


@pytest.fixture(params=MECHANISMS)
def mechanism(request, make_task):
    options, expected = MECHANISMS[request.param]
    name = NAMES.get(request.param, request.param)
    return make_task(name, "model.width=64", "client_batch_size=8", *options), expected


def released(run, round_=0, clip_norm=1.0, params=None, attempt=0, clients=CLIENTS):
    """Noised sum (d,) and extra coordinates (e,) of a round, as the server has them."""
    phase = run.controller.phases[0]
    params = run.new_model().params if params is None else params
    answer = contribution(run, clients, round_=round_, clip_norm=clip_norm, params=params)
    sums = answer.update_sum.double(), answer.extra_sums.numpy().copy()
    noised = release(run.privacy, phase, clip_norm, sums, clients, (round_, str(float(params.sum())), attempt), True)
    return noised, sums


def noise(run, **options):
    """Noise on the sum (d,)."""
    loud, quiet = (released(with_noise(run, s), **options)[0] for s in (SIGMA, 0.0))
    return ((loud.mean - quiet.mean) * loud.batch).numpy()


@pytest.mark.parametrize("clip_norm", [0.05, 1.0, 20.0])
def test_noise_scales_with_the_clip_norm(mechanism, clip_norm):
    run, expected = mechanism
    z = noise(run, clip_norm=clip_norm) / (expected * clip_norm)
    assert 1e-6 < stats.chi2.sf(float(z @ z), len(z)) < 1 - 1e-6 and stats.kstest(z, "norm").pvalue > 1e-6


def test_noise_is_independent_over_rounds_parameters_and_coordinates(mechanism):
    run, _ = mechanism
    other = run.new_model().params * 1.001
    found = [noise(run, round_=r) for r in range(4)] + [noise(run, params=other)]
    half = len(found[0]) // 2
    found = [*(n[:half] for n in found), found[0][half : 2 * half]]
    between = np.corrcoef(np.stack(found))[~np.eye(len(found), dtype=bool)]
    assert abs(between).max() < 6 / half**0.5


def test_attempts_and_other_contributors_are_independent_where_only_sums_are_released(mechanism):
    run, _ = mechanism
    if not run.privacy.mechanism.server_adds_noise:
        plans = [replace(plan_of(run, CLIENTS), attempt=a) for a in (0, 1)]
        loud = 1.99 * COUNT if run.privacy.follows_quantile else 1e2  # the count then leaves the update little else
        runs = [with_noise(run, s) for s in (loud, 0.0)]  # drowns what other samples change
        pairs = [[train_private(p, r, r.privacy).update_sum.double() for r in runs] for p in plans]
        first, second = ((a - b).numpy() for a, b in pairs)
    else:
        first, second = noise(run), noise(run, attempt=1)
        fewer = noise(run, clients=CLIENTS[:-1])
        assert abs(np.corrcoef(first, fewer)[0, 1]) < 6 / len(first) ** 0.5
    assert abs(np.corrcoef(first, second)[0, 1]) < 6 / len(first) ** 0.5


def test_nobody_drawn_is_pure_noise(mechanism):
    run, expected = mechanism
    if not run.privacy.mechanism.server_adds_noise:
        return
    phase, size, nobody = run.controller.phases[0], len(run.node_model.params), CLIENTS[:0]
    sums = torch.zeros(size, dtype=torch.float64), np.zeros(run.privacy.num_extras(phase))
    noised = release(with_noise(run, SIGMA).privacy, phase, 0.5, sums, nobody, (0, "", 0), True)
    batch = run.config.cohort_size * (1 if run.privacy.mechanism.unit == "client" else run.config.client_batch_size)
    z = (noised.mean * batch).numpy() / (0.5 * expected)
    assert 1e-6 < stats.chi2.sf(float(z @ z), size) < 1 - 1e-6


def test_the_servers_noise_is_another_by_round_parameters_and_attempt(make_task, monkeypatch):
    everyone = ("client_central", "model.width=64", "cohort_size=20", "evaluate_every_rounds=0")
    run, noises = make_task(*everyone), []
    server, first = start(run)
    server.folder.mkdir()

    def spy(privacy, phase, clip_norm, sums, *rest):
        before = sums[0].clone()
        noised = release(privacy, phase, clip_norm, sums, *rest)
        noises.append((noised.mean * noised.batch - before).numpy())
        return noised

    monkeypatch.setattr(collect_private, "release", spy)
    phase, size = run.controller.phases[0], len(first.params)
    done = LedgerEntry(0, fingerprint(first.params), 1.0, SIGMA, 1, how="elsewhere")
    moved = replace(first, params=first.params * 1.001)
    states = [first, replace(first, round=1), moved, replace(first, ledger=Ledger().charge(done))]
    for state in states:
        collect_private.collect_private(server, run.privacy, state, phase, Stopwatch())
    assert abs(np.corrcoef(np.stack(noises))[~np.eye(len(states), dtype=bool)]).max() < 6 / size**0.5


def test_the_next_clip_norm_knows_the_noised_count_alone(make_task):
    run = with_noise(make_task("client_central", *FOLLOWS), 0.0)
    phase = run.controller.phases[0]
    for answered in (CLIENTS[:2], CLIENTS):
        sums = torch.zeros(5, dtype=torch.float64), np.array([0.3, 1.5])
        noised = release(run.privacy, phase, 0.7, sums, answered, (0, "", 0), True)
        # 1.5 / 8 clients more than half are within: by Andrew et al. (2021) C falls by exp(-0.2 * 1.5 / 8).
        assert noised.next_clip_norm == pytest.approx(0.7 * np.exp(-0.2 * 1.5 / 8))


def test_the_charge_is_that_of_the_drawing(mechanism):
    run, _ = mechanism
    charged = run.privacy.release(run.controller.phases[0], 3, "aa", CLIENTS)
    if run.privacy.mechanism.unit == "client":
        assert (charged.sample_rate, charged.clients) == (run.config.cohort_size / 20, None)
    else:
        assert charged.sample_rate == pytest.approx(8 / np.mean(run.privacy.terms.sizes))
        assert charged.clients == tuple(range(8))
    assert (charged.round, charged.params, charged.steps) == (3, "aa", 1)


def test_the_divisor_is_the_expected_batch_whoever_was_drawn(mechanism):
    run, _ = mechanism
    sizes, config = run.privacy.terms.sizes, run.config
    if run.privacy.mechanism.unit == "client":
        expected = float(config.cohort_size)
    else:
        expected = config.client_batch_size / sizes.mean() * sizes[CLIENTS].sum()
    for round_ in range(3):
        noised, sums = released(with_noise(run, 0.0), round_=round_)
        assert noised.batch == pytest.approx(expected)
        assert torch.allclose(noised.mean * expected, sums[0], rtol=1e-9)


def test_extra_coordinates_have_their_own_noise_and_not_the_updates(mechanism, monkeypatch):
    run, update = mechanism
    run = with_noise(run, SIGMA)
    phase, clip_norm, seen = run.controller.phases[0], 0.5, []
    for round_ in range(200):
        size = 3
        sums = torch.zeros(size, dtype=torch.float64), np.zeros(run.privacy.num_extras(phase))
        shares = run.privacy.mechanism.noise_shares(8)
        noise_ = run.privacy.release_noise(phase, clip_norm, shares, size)
        total, extras = add_noise(run.privacy, phase, sums, noise_, ("x", round_))
        seen.append([*total.tolist(), *extras.tolist()])
    deviations = [update * clip_norm] * 3 + [10 * update * clip_norm**2]
    deviations += [COUNT * shares**0.5] * run.privacy.follows_quantile
    z = np.array(seen) / np.array(deviations)
    for column in z.T:
        assert 1e-6 < stats.chi2.sf(float(column @ column), len(column)) < 1 - 1e-6
    correlations = np.corrcoef(z.T)[~np.eye(z.shape[1], dtype=bool)]
    assert abs(correlations).max() < 6 / len(z) ** 0.5


def test_every_coordinate_is_paid_for(mechanism):
    run, update = mechanism
    phase, privacy = run.controller.phases[0], run.privacy
    whole = update / privacy.mechanism.noise_shares(8) ** 0.5
    integers = INTEGERS if privacy.mechanism.lattice else 1.0
    parts = whole**-2 + (10 * whole) ** -2 + ((2 * COUNT) ** -2 if privacy.follows_quantile else 0.0)
    charged = privacy.release(phase, 0, "", CLIENTS)
    assert charged.noise_multiplier == pytest.approx(SIGMA)
    assert parts**-0.5 == pytest.approx(SIGMA * integers, rel=2e-3 if privacy.mechanism.lattice else 1e-6)
    assert privacy.noise_multiplier(phase) == charged.noise_multiplier
    assert privacy.update_noise(phase) == pytest.approx(whole, rel=2e-3 if privacy.mechanism.lattice else 1e-6)


@pytest.mark.parametrize("name", ["client_central", "example_local"])
def test_secret_draws_come_from_the_secret_and_not_from_the_public_seed(make_task, tmp_path, name):
    run = make_task(name, f"privacy.secret_file={tmp_path / 'one'}")
    before = run.privacy.randomness.uniform(1000, "cohort", 0)
    (tmp_path / "one").write_bytes(bytes(range(32)))
    task.load.cache_clear()
    after = make_task(name, f"privacy.secret_file={tmp_path / 'one'}").privacy.randomness.uniform(1000, "cohort", 0)
    assert abs(np.corrcoef(before, after)[0, 1]) < 6 / 1000**0.5


@pytest.mark.parametrize("generator_", ["philox", "chacha20"])
def test_examples_are_drawn_with_the_secret(make_task, tmp_path, generator_):
    drawn = []
    options = (f"privacy.secret_file={tmp_path / 'secret'}", f"privacy.generator={generator_}")
    for name in ("one", "one", "two"):
        (tmp_path / "secret").write_bytes(name.encode().ljust(32))
        task.load.cache_clear()
        run = make_task("example_local", *options)
        phase = run.controller.phases[0]
        drawn.append([sample_examples(run, run.privacy, phase, c, (r,)).tolist() for c in range(4) for r in range(10)])
    assert drawn[0] == drawn[1]
    assert sum(a == b for a, b in zip(drawn[0], drawn[2], strict=True)) < 10


def test_another_attempt_at_a_secret_cohort_is_drawn_anew(make_task):
    run = make_task("client_central", "cohort_size=10")
    server, _ = start(run)
    phase, due = run.controller.phases[0], LedgerEntry(0, "aa", 0.5, SIGMA, 1)
    names = [due, due.again(), replace(due, round=1), replace(due, params="bb")]
    cohorts = [collect_private.draw_cohort(server, run.privacy, phase, name).tolist() for name in names]
    assert len({tuple(cohort) for cohort in cohorts}) == len(names)


def test_a_secret_cohort_is_drawn_with_the_secret(make_config, monkeypatch):
    drawn = []
    original = collect_private.draw_cohort

    def spy(server, privacy, phase, due):
        cohort = original(server, privacy, phase, due)
        q = phase.cohort_size / 20
        expected = privacy.randomness.uniform(20, "cohort", due.round, due.params, due.attempt) < q
        assert np.array_equal(cohort, np.flatnonzero(expected))
        drawn.append(cohort.tolist())
        return cohort

    monkeypatch.setattr(collect_private, "draw_cohort", spy)
    private = ("privacy=client_central", "controller=fixed", "executor=fused", "privacy.target_epsilon=null")
    config = make_config(*private, "privacy.noise_multiplier=1", "rounds=4", "evaluate_every_rounds=0")
    run_config(config)
    assert len({tuple(c) for c in drawn}) > 1
    public = [np.flatnonzero(generator(config.seed, "cohort", r).random(20) < 0.2).tolist() for r in range(4)]
    assert drawn != public


def test_the_filters_order_is_fixed_beforehand(make_task):
    adaptive = ("controller=noise_scale_switch", "privacy.target_epsilon=3", "privacy.noise_multiplier=1.0")
    large = ("controller.large.cohort_size=8", "controller.large.client_batch_size=8")
    run = make_task("client_central", *adaptive, *large, "rounds=40")
    privacy = run.privacy
    order = privacy.calibration.order
    spent, best = Ledger(), []
    for round_ in range(40):
        spent = spent.charge(LedgerEntry(round_, "a", 0.2, SIGMA, 1))
        total = divergences(spent.schedules()[0])
        assert privacy.epsilon(spent) == pytest.approx(rdp_epsilon(total, privacy.delta, order))
        assert privacy.allows(spent) == (rdp_epsilon(total, privacy.delta, order) <= 3)
        best.append(rdp_epsilon(total, privacy.delta))
    assert best[0] < privacy.epsilon(Ledger().charge(LedgerEntry(0, "a", 0.2, SIGMA, 1))), (
        "the best order pays afterwards"
    )


@pytest.mark.parametrize("name", ["client_central", "example_local"])
def test_delta_is_that_of_the_guarantee(make_task, name):
    run = make_task(name, "rounds=5")
    q = 0.2 if name == "client_central" else 4 / run.privacy.terms.sizes.mean()
    worst = max(steps for schedule in run.privacy.calibration.schedules for _, _, steps in schedule)
    assert run.privacy.delta == 1e-5
    assert run.privacy.calibration.epsilon == pytest.approx(epsilon([(q, SIGMA, worst)], 1e-5))
