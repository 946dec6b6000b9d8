"""Attacks on releases that are made twice: after a crash, and in a second run of one config with one secret."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from fedbatch import client_app
from fedbatch.node import held_out as node_held_out
from fedbatch.node import private as node_private
from fedbatch.privacy import epsilon, ledger, nonce
from fedbatch.server import collect_private, held_out
from fedbatch.setup import task
from fedbatch.wire.held_out import Sums
from tests.conftest import run
from tests.privacy.releases import sum_of
from tests.privacy.test_private_temperature import OPTIONS, slope, start

SIGMA, CLIP = 1.0, 1.0
FIXED = ("controller=fixed", "executor=fused", "privacy.target_epsilon=null", f"privacy.noise_multiplier={SIGMA}")
EVERYONE = ("cohort_size=20", "nodes=2", "client_batch_size=null", "evaluate_every_rounds=0", "model.width=64")
SUMS = [("client_central",), ("example_distributed", "privacy.min_clients=2")]
FEW = 2
"""Clients whose noise an `example_distributed` release needs to be whole."""


@pytest.fixture
def private(make_config):
    def make(mechanism, *overrides, **options):
        exact = (f"privacy={mechanism}", *FIXED, "privacy.measure_noise_scale=false", f"privacy.clip_norm={CLIP}")
        return make_config(*exact, *EVERYONE, *overrides, **options)

    return make


@pytest.fixture
def releases(monkeypatch):
    """Sums of each round as they were released, noise and all, (d,) float64."""
    found = []
    original = collect_private.release

    def spy(*arguments):
        released = original(*arguments)
        found.append(released.mean.double() * released.batch)
        return released

    monkeypatch.setattr(collect_private, "release", spy)
    return found


def crash_and_resume(private, mechanism, *, before=(), after=(), spoil=lambda: None):
    """Two attempts at round 1 from one checkpoint; ``spoil`` changes something for the first of them."""
    config = private(*mechanism, "rounds=1")
    run(config)
    folder, saved = Path(config.run_dir), Path(config.run_dir).with_name("saved")
    shutil.copytree(folder / "checkpoints", saved)
    undo = spoil()
    run(private(*mechanism, "rounds=2", f"resume={folder}", *before))
    if undo:
        undo()
    shutil.rmtree(folder / "checkpoints")
    shutil.copytree(saved, folder / "checkpoints")
    task.forget()
    state = run(private(*mechanism, "rounds=2", f"resume={folder}", *after))[2]
    return folder, state


def without_second_node(monkeypatch):
    original = node_private.train_private

    def one_node(plan, run_, privacy):
        if plan.clients[0] > 0:
            raise RuntimeError("gone")
        return original(plan, run_, privacy)

    def spoil():
        monkeypatch.setattr(client_app, "train_private", one_node)
        return lambda: monkeypatch.setattr(client_app, "train_private", original)

    return spoil


@pytest.mark.parametrize("mechanism", SUMS, ids=lambda m: m[0])
def test_a_round_done_again_with_other_answers_is_another_release_and_another_charge(
    private, releases, monkeypatch, mechanism
):
    folder, state = crash_and_resume(private, mechanism, spoil=without_second_node(monkeypatch))
    part, whole = releases[-2], releases[-1]
    assert len(releases) == 3
    # With shares, twenty clients bring 20 / 2 noise multipliers' variance, and the ten that answered first half of it.
    variances = 1 + 1 if mechanism[0] == "client_central" else (20 + 10) / FEW
    noise = SIGMA * CLIP * variances**0.5
    difference = (whole - part).numpy()
    assert np.std(difference) > 0.9 * noise, "the noise of the two attempts does not cancel"
    found = ledger.read(folder / ledger.FILE)
    assert [(r.round, r.attempt) for r in found] == [(0, 0), (1, 0), (1, 1)] and list(state.ledger.releases) == found
    spent = [(p[0][0], SIGMA, sum(step for _, _, step in p)) for p in state.ledger.schedules()]
    assert max(steps for *_, steps in spent) == 3, "three steps are paid for"
    assert epsilon(spent[:1], 1e-3) > epsilon([(spent[0][0], SIGMA, 2)], 1e-3)


@pytest.mark.parametrize("mechanism", [*SUMS, ("example_local",)], ids=lambda m: m[0])
def test_the_same_answers_are_the_same_release_even_with_a_secret_of_ones_own(private, releases, tmp_path, mechanism):
    secret = f"privacy.secret_file={tmp_path / 'secret'}"
    folder, state = crash_and_resume(private, (*mechanism, secret))
    assert torch.equal(releases[-1], releases[-2])
    assert [(r.round, r.attempt) for r in state.ledger.releases] == [(0, 0), (1, 0)]
    assert len(ledger.read(folder / ledger.FILE)) == 2


def test_nobodys_reply_changes_when_another_node_stays_away(private, releases, monkeypatch):
    # Each client's reply is a release of its own: the second attempt repeats it, and shows nothing new of anybody.
    folder, state = crash_and_resume(private, ("example_local",), spoil=without_second_node(monkeypatch))
    assert [(r.round, r.attempt) for r in state.ledger.releases] == [(0, 0), (1, 0)]
    assert len(releases) == 3 and folder.exists()


@pytest.mark.parametrize("change", ["executor=vmap", "nodes=4", "threads=2"])
def test_a_round_done_again_on_other_terms_is_another_attempt(private, releases, change):
    _, state = crash_and_resume(private, ("example_local",), after=(change,))
    torch.set_num_threads(1)
    noise = SIGMA * CLIP * (2 * 20) ** 0.5
    assert np.std((releases[-1] - releases[-2]).numpy()) == pytest.approx(noise, rel=0.1)
    assert [(r.round, r.attempt) for r in state.ledger.releases] == [(0, 0), (1, 0), (1, 1)]


def test_a_node_whose_data_changed_meanwhile_is_charged_again(private, releases, monkeypatch):
    mechanism = ("example_local",)
    monkeypatch.setattr(
        "fedbatch.server.resume.refuse_changes", lambda *_: None
    )  # a server that cannot see the node's data

    def without_a_record():
        loaded = task.load(private(*mechanism, "rounds=2", f"resume={place()}").to_json())
        own = loaded.partition.lookup(np.zeros(1, np.int64), np.zeros(1, np.int64))
        loaded.train_x[own] = 0.0

    def place():
        return private(*mechanism).run_dir

    folder, state = crash_and_resume(private, mechanism, spoil=without_a_record)
    # The server has seen the node's other reply to the first attempt: with it, one sample was released twice.
    assert [(r.round, r.attempt) for r in state.ledger.releases] == [(0, 0), (1, 0), (1, 1), (1, 2)]
    assert [r.noise_multiplier for r in state.ledger.releases] == [SIGMA, SIGMA, SIGMA / 2**0.5, SIGMA]
    assert ledger.read(folder / ledger.FILE) == list(state.ledger.releases)
    assert np.std((releases[-1] - releases[-2]).numpy()) == pytest.approx(SIGMA * CLIP * 40**0.5, rel=0.1)


def test_a_reply_that_differs_by_rounding_has_noise_of_its_own(make_task, tmp_path, monkeypatch):
    run_ = make_task("example_local", "model.width=64", "executor=loop", f"privacy.secret_file={tmp_path / 'secret'}")
    first = sum_of(run_, [0])
    original = node_private.clipped_sum

    def rounded(*arguments):
        update, squares = original(*arguments)
        return update * (1 + 1e-15), squares

    monkeypatch.setattr(node_private, "clipped_sum", rounded)
    second = sum_of(run_, [0])
    assert np.std((first - second).numpy()) == pytest.approx(SIGMA * CLIP * (2 * 1.01) ** 0.5, rel=0.1)
    assert torch.equal(second, sum_of(run_, [0])), "the same sum is the same reply"


def test_so_has_a_slope(make_task, tmp_path, monkeypatch):
    run_ = make_task("example_local", f"privacy.secret_file={tmp_path / 'secret'}", *OPTIONS)
    first = slope(run_, clients=[0])
    original = node_held_out.slopes
    monkeypatch.setattr(node_held_out, "slopes", lambda *arguments: original(*arguments) * (1 + 1e-15))
    assert abs(slope(run_, clients=[0]) - first) > 1e-3
    assert slope(run_, clients=[0]) == slope(run_, clients=[0])


def test_without_a_secret_file_rounding_changes_no_noise(make_task, monkeypatch):
    run_ = make_task("example_local")
    first = sum_of(run_, [0])
    original = node_private.clipped_sum

    def rounded(*arguments):
        update, squares = original(*arguments)
        return update * (1 + 1e-15), squares

    monkeypatch.setattr(node_private, "clipped_sum", rounded)
    assert (first - sum_of(run_, [0])).norm() < 1e-5


def test_the_servers_noise_of_a_temperature_holds_who_is_summed(make_task):
    loaded = make_task("client_central", *OPTIONS)
    server, state = start(loaded)
    plans = held_out.slope_plans(server, state, 1.0, 4.0)
    noises = []
    for count in range(1, 21):
        answers = [Sums(np.arange(count), torch.zeros(1, dtype=torch.float64))]
        noises.append(held_out.noised_slope(server, loaded.privacy, plans, answers))
    z = np.array(noises) / (4.0 * 4.0)  # four times the noise of a round, in clip norms of 4
    assert len(set(noises)) == 20 and 1e-4 < stats.chi2.sf(float(z @ z), 20) < 1 - 1e-4


def two_runs(private, mechanism, *overrides, change):
    """The first rounds of two runs of one config, the second without a record if there is a ``change``."""
    for folder in ("first", "second"):
        config = private(mechanism, "rounds=1", *overrides, folder=folder)
        task.load.cache_clear()
        loaded = task.load(config.to_json())
        if change and folder == "second":
            own = loaded.partition.lookup(np.zeros(1, np.int64), np.zeros(1, np.int64))
            loaded.train_x[own] = 0.0
        run(config)


@pytest.mark.parametrize("mechanism", ["client_central", "example_local"])
@pytest.mark.parametrize("change", [True, False])
def test_a_second_run_with_one_secret_draws_anew(private, releases, tmp_path, mechanism, change):
    two_runs(private, mechanism, f"privacy.secret_file={tmp_path / 'secret'}", change=change)
    clients = 1 if mechanism == "client_central" else 20
    difference = (releases[0] - releases[1]).numpy()
    # Had the noise been the same, only one clipped contribution would be left, no longer than 2 C.
    assert np.std(difference) == pytest.approx(SIGMA * CLIP * (2 * clients) ** 0.5, rel=0.1)
    assert np.linalg.norm(difference) > 20 * CLIP
    first, second = ((tmp_path / folder / nonce.FILE).read_text() for folder in ("first", "second"))
    assert len(first.strip()) == 32 and first != second


def test_without_a_secret_file_the_noise_of_a_client_still_follows_its_data(private, releases):
    two_runs(private, "example_local", change=True)
    assert np.linalg.norm((releases[0] - releases[1]).numpy()) > 20 * CLIP


@pytest.mark.parametrize("mechanism", ["client_central", "example_local"])
def test_without_a_secret_file_two_runs_of_one_config_are_equal_bit_for_bit(private, releases, mechanism):
    two_runs(private, mechanism, change=False)
    assert torch.equal(releases[0], releases[1])


def test_other_examples_are_sampled_from_other_data(make_task):
    run_ = make_task("example_local", "client_batch_size=8")
    phase = run_.controller.phases[0]

    def drawn(data):
        return [node_private.sample_examples(data, data.privacy, phase, 0, (r, "h")).tolist() for r in range(20)]

    before = drawn(run_)
    own = run_.partition.lookup(np.zeros(1, np.int64), np.zeros(1, np.int64))
    run_.train_x[own] += 1e-3
    after = drawn(run_)
    assert sum(a == b for a, b in zip(before, after, strict=True)) < 10
    assert torch.equal(sum_of(run_, [1]), sum_of(run_, [1]))


def test_other_labels_are_other_data(make_task):
    run_ = make_task("example_local", "model.width=64", "client_batch_size=null")
    first = sum_of(run_, [0])
    own = run_.partition.lookup(np.zeros(1, np.int64), np.zeros(1, np.int64))
    run_.train_y[own] = (run_.train_y[own] + 1) % 10
    assert np.std((first - sum_of(run_, [0])).numpy()) == pytest.approx(SIGMA * CLIP * (2 * 1.01) ** 0.5, rel=0.1)


def test_a_folder_keeps_its_nonce_once_it_has_released_something(tmp_path, make_task):
    mechanism = make_task("example_local", f"privacy.secret_file={tmp_path / 'secret'}").privacy.mechanism
    first = nonce.nonce_of(mechanism, tmp_path, begun=False)
    assert nonce.nonce_of(mechanism, tmp_path, begun=True) == first
    assert nonce.nonce_of(mechanism, tmp_path, begun=False) != first
    assert nonce.nonce_of(make_task("example_local").privacy.mechanism, tmp_path, begun=False) == ""
