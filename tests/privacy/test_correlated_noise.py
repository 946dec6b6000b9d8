"""Runs with correlated noise: the law of what they release, who takes part when, and what they are charged.

The noise of a round is what was released less what was summed. Times the strategy, it must be white.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from fedbatch import client_app
from fedbatch.config.schema import identity_of
from fedbatch.core.errors import ConfigError, RunFailedError
from fedbatch.node import private as node_private
from fedbatch.privacy import ledger
from fedbatch.privacy.banded import coefficients
from fedbatch.privacy.choose_bands import best_bands, candidates, predicted_error
from fedbatch.privacy.ledger import AGAIN
from fedbatch.server import collect_private
from fedbatch.server.checkpoint import load_latest
from fedbatch.server.resume import history
from fedbatch.server.stopwatch import Stopwatch
from fedbatch.setup import task
from tests.conftest import run
from tests.privacy.test_banded import dense
from tests.privacy.test_private_temperature import start

ROUNDS, BANDS, SIGMA, CLIP = 8, 4, 1.5, 0.7
SQUARES = (1 + 0.01) ** 0.5
NOISED = ("controller=fixed", "executor=fused", "privacy.target_epsilon=null", f"privacy.noise_multiplier={SIGMA}")
SMALL = (f"rounds={ROUNDS}", "model.width=64", f"privacy.clip_norm={CLIP}", "evaluate_every_rounds=0")
KINDS = {
    "client": ("privacy=client_central", "cohort_size=5"),
    "example": ("privacy=example_central", "cohort_size=20", "client_batch_size=8"),
    "adaptive_clip": ("privacy=client_central", "cohort_size=5", "privacy.clip_quantile=0.9", "privacy.count_noise=20"),
}


@pytest.fixture
def correlated(make_config):
    def make(kind, *overrides, bands=BANDS, **options):
        return make_config(*KINDS[kind], *NOISED, *SMALL, f"privacy.bands={bands}", *overrides, **options)

    return make


@pytest.fixture
def noises(monkeypatch):
    """Of each round the clip norm and the noise (d,) on the sum, as the server makes them."""
    found = []
    original = collect_private.release

    def spy(privacy, phase, clip_norm, sums, *rest):
        before = sums[0].clone()
        released = original(privacy, phase, clip_norm, sums, *rest)
        found.append((clip_norm, (released.mean * released.batch - before).numpy()))
        return released

    monkeypatch.setattr(collect_private, "release", spy)
    return found


def in_clip_norms(noises):
    """(T, d) in units of what each coordinate of the update gets."""
    return np.stack([noise / (SIGMA * SQUARES * clip_norm) for clip_norm, noise in noises])


def is_white(rows):
    size = rows.shape[1]
    assert all(1e-6 < stats.chi2.sf(float(z @ z), size) < 1 - 1e-6 for z in rows)
    assert all(stats.kstest(z, "norm").pvalue > 1e-6 for z in rows)
    between = np.corrcoef(rows)[~np.eye(len(rows), dtype=bool)]
    assert abs(between).max() < 6 / size**0.5
    halves = np.corrcoef(rows[:, : size // 2].ravel(), rows[:, size // 2 : 2 * (size // 2)].ravel())[0, 1]
    assert abs(halves) < 6 / (rows.size / 2) ** 0.5


@pytest.mark.parametrize("kind", ["client", "example"])
def test_the_strategy_times_the_noise_is_white_and_its_covariance_the_inverse(correlated, noises, kind):
    _, _, state = run(correlated(kind))
    matrix, found = dense(coefficients(BANDS, ROUNDS), ROUNDS), in_clip_norms(noises)
    assert state.noise_history.coefficients == coefficients(BANDS, ROUNDS)
    is_white(matrix @ found)
    expected = np.linalg.inv(matrix) @ np.linalg.inv(matrix).T
    size = found.shape[1]
    spread = np.sqrt((expected**2 + np.outer(np.diag(expected), np.diag(expected))) / size)
    assert (abs(found @ found.T / size - expected) < 6 * spread).all()
    sums = found.cumsum(axis=0)
    independent = np.arange(1, ROUNDS + 1)
    assert (sums[-1] @ sums[-1]) / size < 0.5 * independent[-1], "much of it cancels in the sum"


@pytest.mark.slow
def test_so_it_is_with_a_clip_norm_that_follows_a_quantile(correlated, noises):
    run(correlated("adaptive_clip"))
    assert len({clip_norm for clip_norm, _ in noises}) == ROUNDS
    quantile = (1 - (SIGMA / (2 * 20)) ** 2) ** -0.5
    is_white(dense(coefficients(BANDS, ROUNDS), ROUNDS) @ in_clip_norms(noises) / quantile)


def test_phases_may_have_rates_and_noise_of_their_own(correlated, noises):
    phases = ("controller=schedule", "controller.starts.large=4", "privacy.noise_schedule=proportional")
    sizes = ("controller.phases.large.cohort_size=10", "controller.phases.large.client_batch_size=4", "cohort_size=5")
    _, summary, _ = run(correlated("client", *phases, *sizes, bands=2))
    factors = np.repeat([1.0, 2.0], 4)[:, None]  # twice the cohort has twice the noise
    is_white(dense(coefficients(2, ROUNDS), ROUNDS) @ (in_clip_norms(noises) / factors))
    spent = {(p["sample_rate"], p["noise_multiplier"], p["steps"]) for p in summary["privacy"]["schedule"]}
    assert spent == {(0.5, SIGMA, 2), (1.0, 2 * SIGMA, 2)}


def test_a_group_takes_part_every_b_rounds_and_is_charged_then(correlated, monkeypatch):
    cohorts = []
    original = collect_private.draw_cohort

    def spy(*arguments):
        cohorts.append(original(*arguments))
        return cohorts[-1]

    monkeypatch.setattr(collect_private, "draw_cohort", spy)
    _, summary, state = run(correlated("client", "rounds=64", "model.width=8", "cohort_size=2"))
    rounds = [{t % BANDS for t, cohort in enumerate(cohorts) if client in cohort} for client in range(20)]
    assert all(len(groups) == 1 for groups in rounds) and np.bincount([min(g) for g in rounds]).tolist() == [5] * 4
    taken = sum(map(len, cohorts))  # each of five with probability 4 * 2 / 20
    assert 1e-6 < stats.binom.cdf(taken, 64 * 5, 0.4) < 1 - 1e-6
    assert [r.clients for r in state.ledger.releases] == [(t % BANDS,) for t in range(64)]
    assert summary["privacy"]["schedule"] == [{"sample_rate": 0.4, "noise_multiplier": SIGMA, "steps": 16}]
    assert "cyclic in 4 groups" in summary["privacy"]["sampler"]
    assert summary["privacy"]["noise"].startswith("correlated over 4 rounds")


def test_examples_of_a_client_take_turns(correlated):
    loaded = task.load(correlated("example", "client_batch_size=4").to_json())
    phase, size = loaded.controller.phases[0], int(loaded.privacy.terms.sizes[3])
    rate, drawn = 4 / loaded.privacy.terms.sizes.mean(), {}
    for round_ in range(400):
        positions = node_private.sample_examples(loaded, loaded.privacy, phase, 3, (round_, "a", 0))
        for position in positions:
            drawn.setdefault(int(position), []).append(round_)
    assert len(drawn) == size and all(len({t % BANDS for t in rounds}) == 1 for rounds in drawn.values())
    groups = np.bincount([rounds[0] % BANDS for rounds in drawn.values()])
    assert groups.max() - groups.min() <= 1
    taken = sum(map(len, drawn.values()))
    assert 1e-6 < stats.binom.cdf(taken, size * 100, BANDS * rate) < 1 - 1e-6


@pytest.mark.parametrize("kind", ["client", "example"])
def test_epsilon_is_that_of_a_unit_that_takes_part_in_a_group(correlated, kind):
    import dp_accounting as dp

    _, summary, _ = run(correlated(kind, "rounds=10", "model.width=8"))
    sizes = task.load(correlated(kind, "rounds=10", "model.width=8").to_json()).privacy.terms.sizes
    q = 4 * 5 / 20 if kind == "client" else 4 * 8 / sizes.mean()
    event = dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(q, dp.GaussianDpEvent(SIGMA)), 3)  # ceil(10 / 4)
    expected = dp.pld.PLDAccountant().compose(event).get_epsilon(summary["privacy"]["delta"])
    assert (
        summary["epsilon"] == pytest.approx(expected, rel=1e-6) == pytest.approx(summary["privacy"]["planned_epsilon"])
    )


def test_the_noise_scale_takes_away_the_noise_of_its_round(correlated, monkeypatch):
    seen = []
    original = collect_private.release

    def nothing(privacy, phase, clip_norm, sums, *rest):
        released = original(privacy, phase, clip_norm, (torch.zeros_like(sums[0]), np.zeros(1)), *rest)
        seen.append((float(released.mean.square().sum()) * released.batch**2, released.noise.energy))
        return released

    monkeypatch.setattr(collect_private, "release", nothing)
    run(correlated("client"))
    inverted = np.linalg.inv(dense(coefficients(BANDS, ROUNDS), ROUNDS))
    lengths, energies = np.array(seen).T
    size = task.load(correlated("client").to_json()).node_model.params.numel()
    expected = size * (SIGMA * CLIP * SQUARES) ** 2 * (inverted**2).sum(axis=1)
    assert energies == pytest.approx(expected)
    assert abs(lengths / expected - 1).max() < 6 * (2 / size) ** 0.5


def breaks_in(monkeypatch, round_):
    """Until it is undone, a node has a power cut in a round."""
    original = node_private.train_private

    def breaks(plan, run_, privacy):
        if plan.round == round_:
            raise RuntimeError("power cut")
        return original(plan, run_, privacy)

    monkeypatch.setattr(client_app, "train_private", breaks)
    return lambda: monkeypatch.setattr(client_app, "train_private", original)


@pytest.mark.parametrize("kind", ["client", "example"])
def test_a_resumed_run_is_unbroken_bit_for_bit_and_its_checkpoint_tells_no_noise(
    correlated, monkeypatch, noises, tmp_path, kind
):
    secret = (f"privacy.secret_file={tmp_path / 'secret'}", "checkpoint_every_rounds=1")
    (tmp_path / "secret").write_bytes(bytes(range(32)))
    monkeypatch.setattr("fedbatch.server.charging.nonce_of", lambda *_, **__: "")  # or two runs would differ
    whole = run(correlated(kind, *secret, folder="whole"))[1]
    before = len(noises)
    undo = breaks_in(monkeypatch, 5)
    parts = correlated(kind, *secret, folder="parts")
    with pytest.raises(RunFailedError, match="power cut|too few|min_clients"):
        run(parts)
    undo()
    kept = b"".join(path.read_bytes() for path in (Path(parts.run_dir) / "checkpoints").iterdir())
    for clip_norm, noise in noises[before:]:
        unit = (noise / (SIGMA * SQUARES * clip_norm)).astype(np.float32)
        assert unit[:2].tobytes() not in kept and noise.astype(np.float32)[:2].tobytes() not in kept
    task.forget()
    _, summary, state = run(correlated(kind, *secret, f"resume={parts.run_dir}", folder="parts"))
    assert summary["params_sha256"] == whole["params_sha256"] and summary["epsilon"] == whole["epsilon"]
    assert len(state.ledger.releases) == ROUNDS


def test_a_run_that_is_made_longer_keeps_its_strategy(correlated, noises):
    first = correlated("client", "rounds=5")
    run(first)
    task.forget()
    _, _, state = run(correlated("client", "rounds=8", f"resume={first.run_dir}"))
    assert state.noise_history.coefficients == coefficients(BANDS, 5) != coefficients(BANDS, 8)
    is_white(dense(coefficients(BANDS, 5), 8) @ in_clip_norms(noises))


def done_again(correlated, monkeypatch, kind, *overrides):
    """Rounds 3 to 7 were released without the second node, and then lost with their checkpoints."""
    settings = ("nodes=2", *overrides)
    first = correlated(kind, *settings, "rounds=3")
    run(first)
    folder, saved = Path(first.run_dir), Path(first.run_dir).with_name("saved")
    shutil.copytree(folder / "checkpoints", saved)
    original = node_private.train_private

    def one_node(plan, run_, privacy):
        if plan.clients[-1] >= 10:
            raise RuntimeError("gone")
        return original(plan, run_, privacy)

    monkeypatch.setattr(client_app, "train_private", one_node)
    task.forget()
    run(correlated(kind, *settings, "rounds=5", f"resume={folder}"))
    monkeypatch.setattr(client_app, "train_private", original)
    shutil.rmtree(folder / "checkpoints")
    shutil.copytree(saved, folder / "checkpoints")
    task.forget()
    return folder, run(correlated(kind, *settings, "rounds=6", f"resume={folder}"))[2]


def test_rounds_done_again_with_other_answers_are_charged_to_everyone(correlated, monkeypatch, noises):
    folder, state = done_again(correlated, monkeypatch, "example", "client_batch_size=8")
    found = ledger.read(folder / ledger.FILE)
    assert list(state.ledger.releases) == found
    told = [(r.round, r.attempt, r.question, r.sample_rate == 1.0, r.clients) for r in found]
    first = [(t, 0, "", False, (t % BANDS,)) for t in range(5)]
    again = [
        (3, 1, AGAIN, True, None),
        (3, 1, "", False, (3,)),
        (4, 0, AGAIN, True, None),
        (4, 0, "", False, (0,)),
        (5, 0, "", False, (1,)),
    ]
    assert told == first + again
    q = found[0].sample_rate
    spent = {tuple(phases) for phases in state.ledger.schedules()}
    assert spent == {((q, SIGMA, 3), (1.0, SIGMA, 2))}, "the group of round 4 took part in 0, 4 and 4 again"
    matrix, units = dense(coefficients(BANDS, 3), 6), in_clip_norms(noises)
    before, second = units[:3], units[5:]
    is_white(matrix @ np.concatenate([before, second]))
    is_white(
        np.concatenate([(matrix @ units[[0, 1, 2, 3, 4, 4]])[3:5], (matrix @ np.concatenate([before, second]))[3:5]])
    )


def test_the_same_answers_again_cost_nothing(correlated, noises):
    first = correlated("client", "rounds=3")
    run(first)
    folder, saved = Path(first.run_dir), Path(first.run_dir).with_name("saved")
    shutil.copytree(folder / "checkpoints", saved)
    for _ in range(2):
        shutil.rmtree(folder / "checkpoints")
        shutil.copytree(saved, folder / "checkpoints")
        task.forget()
        state = run(correlated("client", "rounds=5", f"resume={folder}"))[2]
    assert len(state.ledger.releases) == 5 and len(noises) == 3 + 2 * 2
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(noises[3:5], noises[5:], strict=True))


def test_other_noise_before_is_another_release_even_at_the_same_parameters(correlated, noises):
    loaded = task.load(correlated("client").to_json())
    server, state = start(loaded)
    server.folder.mkdir()
    phase, size = loaded.controller.phases[0], state.params.numel()
    pasts = [replace(state.noise_history, noises=(torch.full((size,), value),)) for value in (0.0, 1.0)]
    ledgers = []
    for past in pasts:
        before = replace(state, round=1, noise_history=past)
        collected = collect_private.collect_private(server, loaded.privacy, before, phase, Stopwatch())
        ledgers += list(collected.changes["ledger"].releases)
    assert ledgers[0].params != ledgers[1].params
    fresh = [noise / CLIP + value * 1.6 for (_, noise), value in zip(noises, (0.0, 1.0), strict=True)]
    assert abs(np.corrcoef(fresh)[0, 1]) < 6 / size**0.5, "or their difference would be that of the sums"


def test_another_number_of_bands_is_refused_on_resume(correlated):
    first = correlated("client", "rounds=3")
    run(first)
    state = load_latest(Path(first.run_dir) / "checkpoints")
    task.forget()
    privacy = task.load(correlated("client", bands=2).to_json()).privacy
    with pytest.raises(
        ConfigError, match=r"began with noise over 4 bands, and privacy\.bands=auto now takes 2; resume it"
    ):
        history(privacy, state)


def test_one_band_is_the_run_that_it_was_before_there_were_bands(correlated):
    config = correlated("client", bands=1)
    values = vars(config) | {"noise_scale": vars(config.noise_scale)}
    before = {name: value for name, value in config.privacy.items() if name != "bands"}
    assert config.identity() == identity_of(values | {"privacy": before})
    assert config.identity() != identity_of(values | {"privacy": before | {"bands": 2}})


def test_auto_takes_the_bands_with_the_least_predicted_error(make_config):
    auto = ("privacy=client_ftrl", "controller=fixed", "executor=fused", "cohort_size=4", "rounds=20")
    privacy = task.load(make_config(*auto, "privacy.accountant=rdp").to_json()).privacy
    phases = [privacy.terms.first] * 20
    assert candidates(privacy.terms, phases) == [1, 2, 4]
    errors = {}
    for bands in (1, 2, 4):
        sigma = privacy.calibration.first_noise if bands == privacy.terms.bands else None
        terms = replace(privacy.terms, bands=bands)
        errors[bands] = predicted_error(terms, phases, lambda *_: None, lambda _: 1, privacy.delta)
        if sigma:  # noise on prefix sums, by the matrix
            inverted = np.linalg.inv(dense(coefficients(bands, 20), 20))
            sums = np.tril(np.ones((20, 20))) @ inverted
            assert errors[bands] == pytest.approx(sigma * np.linalg.norm(sums) / 20**0.5, rel=1e-3)
    assert privacy.terms.bands == min(errors, key=errors.__getitem__) > 1
    few = replace(privacy.terms, sizes=np.full(10_000, 5))
    assert best_bands(few, phases, lambda *_: None, lambda _: 1, 1e-5) < 16, "amplification by q = 0.0004 is worth more"


REFUSED = [
    (
        ("privacy=client_ftrl", "controller=noise_scale_switch"),
        r"privacy\.bands=auto: .*use controller=fixed or schedule",
    ),
    (("privacy=client_ftrl", "target_value=0.9"), r"privacy\.bands=auto: .* without target_value"),
    (("privacy=client_ftrl", "privacy.noise_multiplier=1"), r"set privacy\.target_epsilon and noise_multiplier=null"),
    (("privacy=client_central", "privacy.bands=6"), r"privacy\.bands=6: .* take at most 5 bands, or lower cohort_size"),
    (("privacy=example_ftrl",), r"privacy\.bands=auto: .* set cohort_size=20 \(phase fixed\)"),
    (("privacy=example_central", "privacy.bands=2", "cohort_size=20", "client_batch_size=null"), "at most 1 bands"),
    (("privacy=client_central", "privacy.bands=0"), r"privacy\.bands must be in"),
    (("privacy=client_central", "privacy.bands=many"), r"privacy\.bands must be a whole number from 1"),
    (("privacy=example_local", "+privacy.bands=2"), "unexpected keyword argument 'bands'"),
    (
        ("privacy=example_central", "client_work=local_sgd", "client_work.epochs=null", "client_work.steps=1"),
        r"client_work: privacy=example_central adds noise to one sum .* use client_work=fedsgd",
    ),
]


@pytest.mark.parametrize(("overrides", "message"), REFUSED, ids=lambda v: None)
def test_refused_before_the_first_round_with_the_remedy(make_config, overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        task.load(make_config("controller=fixed", "executor=fused", *overrides).to_json())
    assert "\n" not in str(caught.value)
