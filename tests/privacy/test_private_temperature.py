"""A temperature under privacy: what it costs, what it adds up, whose noise it has, and what refuses it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from fedbatch import client_app, server_app
from fedbatch.config.schema import from_json
from fedbatch.core.errors import ConfigError, RunFailedError
from fedbatch.metrics.temperature import HALVINGS
from fedbatch.node.held_out import noised_slope as slope_of_node
from fedbatch.privacy import epsilon, ledger
from fedbatch.runtime.flower import reason
from fedbatch.runtime.local import LocalGrid
from fedbatch.server.held_out import noised_slope, slope_plans
from fedbatch.setup import task
from fedbatch.wire.codec import encode
from fedbatch.wire.held_out import EvaluatePlan, SlopePlan, SumsPlan
from tests.conftest import run
from tests.privacy.releases import with_noise

OPTIONS = ("client_holdout=0.3", "temperature=private")
CLIENT = ("client_central",)
EXAMPLES = [("example_local",), ("example_distributed", "privacy.min_clients=4")]
EVERY = [CLIENT, *(pytest.param(mechanism, marks=pytest.mark.slow) for mechanism in EXAMPLES)]


def start(run_, nodes=1):
    config = run_.config.to_json()
    grid = LocalGrid(client_app.app, nodes, {"config": config})
    server = server_app.new_server(run_, grid)
    return server, server_app.start(server)


def slope(run_, inverse=1.0, clients=None, clip_norm=4.0):
    clients = np.arange(20) if clients is None else np.array(clients)
    plan = SlopePlan(run_.node_model.params.clone(), clients, 0, inverse, clip_norm)
    return float(slope_of_node(plan, run_, run_.privacy).sums)


@pytest.mark.parametrize("mechanism", EVERY, ids=str)
def test_its_releases_are_in_the_one_ledger_and_in_epsilon(make_config, mechanism):
    name, *more = mechanism
    private = (f"privacy={name}", "privacy.target_epsilon=null", "privacy.noise_multiplier=1.0", "executor=fused")
    config = make_config(
        "controller=fixed", *private, *more, *OPTIONS, "rounds=2", "evaluate_every_rounds=0", "temperature.clip_norm=4"
    )
    rows, summary, state = run(config)
    found = list(state.ledger.releases)
    assert found == ledger.read(Path(config.run_dir) / ledger.FILE) and len(found) == 2 + HALVINGS
    spent = [(r.sample_rate, r.noise_multiplier, r.steps) for r in found[2:]]
    assert spent == [(1.0, 4.0, 1)] * HALVINGS, "everyone takes part, with four times the noise of a round"
    guarantee = summary["privacy"]
    phases = [(p["sample_rate"], p["noise_multiplier"], p["steps"]) for p in guarantee["schedule"]]
    assert (1.0, 4.0, HALVINGS) in phases and guarantee["epsilon"] == pytest.approx(epsilon(phases, guarantee["delta"]))
    assert guarantee["planned_epsilon"] == pytest.approx(guarantee["epsilon"])
    assert 0.25 <= summary["calibration"]["temperature"] <= 8
    assert set(summary["calibration"]["after"]) == {"test"}, "no score of what clients hold out"
    assert not [column for column in rows[-1] if column.startswith(("held_out", "client_accuracy"))]


@pytest.mark.slow
def test_noise_is_calibrated_to_rounds_and_temperature_together(make_task):
    target = ("privacy.noise_multiplier=null", "privacy.target_epsilon=2", "rounds=5")
    with_it = make_task("client_central", *target, *OPTIONS)
    without = make_task("client_central", *target)
    assert with_it.privacy.calibration.first_noise > without.privacy.calibration.first_noise
    assert 1.99 < with_it.privacy.calibration.epsilon <= 2


@pytest.mark.slow
def test_a_crash_after_the_first_release_charges_it_once(make_config, monkeypatch):
    private = ("privacy=client_central", "privacy.target_epsilon=null", "privacy.noise_multiplier=0", "executor=fused")
    config = make_config("controller=fixed", *private, *OPTIONS, "rounds=1", "checkpoint_every_rounds=1")
    asked = []

    def crash(*arguments):
        asked.append(arguments)
        if len(asked) == 3:
            raise RunFailedError("crash")
        return noised_slope(*arguments)

    monkeypatch.setattr("fedbatch.server.temperature.noised_slope", crash)
    with pytest.raises(Exception, match="crash"):
        run(config)
    monkeypatch.undo()
    same = ("rounds=1", "checkpoint_every_rounds=1")
    again = make_config("controller=fixed", *private, *OPTIONS, *same, f"resume={config.run_dir}")
    _, _, state = run(again)
    assert len(ledger.read(Path(config.run_dir) / ledger.FILE)) == len(state.ledger.releases) == 1 + HALVINGS


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", EVERY, ids=str)
def test_one_unit_moves_the_sum_by_no_more_than_the_clip_norm(make_task, mechanism):
    silent = with_noise(make_task(*mechanism, *OPTIONS), 0.0)
    held = silent.held_out(3)
    for scale in (1.0, 1e4, float("inf"), float("nan")):
        before = slope(silent, clip_norm=0.5)
        kept = silent.train_x[held].clone()
        if silent.privacy.mechanism.unit == "client":
            silent.train_x[held] *= scale  # all that a client holds out
        else:
            silent.train_x[held[:1]] *= scale
        moved = abs(slope(silent, clip_norm=0.5) - before)
        silent.train_x[held] = kept
        assert moved <= 2 * 0.5 + 1e-9, "replacing a unit is removing it and adding another"
    others = [client for client in range(20) if client != 3]
    taken = abs(slope(silent, clip_norm=0.5) - slope(silent, clients=others, clip_norm=0.5))
    units = 1 if silent.privacy.mechanism.unit == "client" else len(held)
    assert 0 < taken <= 0.5 * units + 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", EVERY, ids=str)
def test_the_noise_is_what_was_accounted(make_task, mechanism):
    loaded = make_task(*mechanism, *OPTIONS)
    silent = with_noise(loaded, 0.0)
    server, state = start(loaded)
    quiet, _ = start(silent)
    draws = []
    for inverse in np.linspace(0.5, 2, 60):
        plans = slope_plans(server, state, float(inverse), 4.0)
        draws.append(noised_slope(server, loaded.privacy, plans) - slope(silent, float(inverse)))
    assert quiet.task.privacy.temperature_noise == 0
    deviation = 4.0 * 4.0 * loaded.privacy.mechanism.noise_shares(20) ** 0.5
    z = np.array(draws) / deviation
    assert 1e-6 < stats.chi2.sf(float(z @ z), len(z)) < 1 - 1e-6 and stats.kstest(z, "norm").pvalue > 1e-6
    again = slope_plans(server, state, 0.5, 4.0)
    assert noised_slope(server, loaded.privacy, again) == pytest.approx(draws[0] + slope(silent, 0.5)), "a replay"


@pytest.mark.slow
def test_too_few_shares_of_noise_are_not_released(make_task):
    loaded = make_task("example_distributed", "privacy.min_clients=4", *OPTIONS)
    server, state = start(loaded)
    few = {
        node: SlopePlan(p.params, p.clients[:3], 0, 1.0, 4.0)
        for node, p in slope_plans(server, state, 1.0, 4.0).items()
    }
    with pytest.raises(RunFailedError, match="min_clients"):
        noised_slope(server, loaded.privacy, few)


@pytest.mark.slow
def test_a_schedule_that_looks_at_releases_leaves_no_budget(make_config):
    private = ("privacy=client_central", "privacy.noise_multiplier=1", *OPTIONS)
    with pytest.raises(ConfigError, match="temperature=private"):
        task.load(make_config("controller=noise_scale_switch", *private).to_json())


@pytest.mark.slow
def test_a_node_of_a_private_run_answers_no_other_question(make_task):
    loaded = make_task("client_central", *OPTIONS)
    server, state = start(loaded)
    assert from_json(loaded.config.to_json()).privacy
    node = next(iter(server.hosts.by_node(server.hosts.clients)))
    ones = np.ones(20)
    plan = SumsPlan(state.params, state.buffers, np.arange(20), ones, "all", "counts_up_to", torch.ones(1))
    scores = EvaluatePlan(state.params, state.buffers, np.arange(20), torch.zeros(0))
    for kind, question in (("evaluate.sums", plan), ("evaluate.temperatures", plan), ("evaluate", scores)):
        (reply,) = server.grid.send_and_receive([server.grid.create_message(encode(question), kind, node, "0")])
        assert reply.has_error(), kind
        assert ("SlopePlan" if kind == "evaluate.sums" else "private run") in reason(reply.error)


@pytest.mark.parametrize("name", ["client_central", "example_local"])
def test_slopes_are_clipped_one_by_one_and_added(make_task, name):
    silent = with_noise(make_task(name, *OPTIONS), 0.0)
    inverse, units = torch.tensor(1.3, dtype=torch.float64, requires_grad=True), []
    for client in range(20):
        held = torch.from_numpy(silent.held_out(client))
        logits = silent.node_model.module(silent.train_x[held]).double().detach()
        losses = torch.nn.functional.cross_entropy(inverse * logits, silent.train_y[held], reduction="none")
        own = [float(torch.autograd.grad(loss, inverse, retain_graph=True)[0]) for loss in losses]
        units += [float(np.mean(own))] if name == "client_central" else own
    middle = float(np.median(np.abs(units)))
    expected = float(np.clip(units, -middle, middle).sum())
    assert np.count_nonzero(np.abs(units) > middle) > 2
    assert slope(silent, inverse=1.3, clip_norm=middle) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["client_central", "example_local", "example_distributed"])
def test_its_noise_is_another_by_round_attempt_nonce_and_question(make_task, name):
    more = ("privacy.min_clients=4",) if name == "example_distributed" else ()
    loud = make_task(name, *more, *OPTIONS)
    server, state = start(loud)
    moved = replace(state, params=state.params * 1.001)
    options = [{}, {"attempt": 1}, {"nonce": "a" * 32}, {"inverse": 1.1}]
    asked = [slope_plans(server, state, **{"inverse": 1.0, "clip_norm": 4.0} | each) for each in options]
    asked += [slope_plans(server, other, 1.0, 4.0) for other in (moved, replace(state, round=1))]
    noises = []
    for plans in asked:
        silent = with_noise(loud, 0.0)
        without = sum(float(slope_of_node(p, silent, silent.privacy).sums) for p in plans.values())
        answers = [slope_of_node(p, loud, loud.privacy) for p in plans.values()]
        noises.append(noised_slope(server, loud.privacy, plans, answers) - without)
    assert len({round(noise, 6) for noise in noises}) == len(noises), noises


def test_its_noise_is_another_by_client_and_data(make_task):
    loud = make_task("example_local", *OPTIONS)
    loud.train_x.fill_(1.0)
    loud.train_y.fill_(0)
    held = [len(loud.held_out(client)) for client in range(20)]
    one, two = [client for client in range(20) if held[client] == held[0]][:2]

    def noise(client):
        return slope(loud, clients=[client]) - slope(with_noise(loud, 0.0), clients=[client])

    before = noise(one)
    assert abs(before - noise(two)) > 1e-3
    loud.train_x[loud.held_out(one)[:1]] = 1.001
    assert abs(before - noise(one)) > 1e-3
