"""A node with a budget of its own: a server that asks as it likes gets no more than its owner allows."""

import json
import os

import numpy as np
import pytest
import torch
from flwr.app import Message

from fedbatch import client_app
from fedbatch.core.errors import ConfigError
from fedbatch.node.budget import Budget, admit, budget_of, with_own_secret
from fedbatch.privacy import epsilon, ledger
from fedbatch.privacy.accounting import divergences, rdp_epsilon
from fedbatch.runtime.local import LocalGrid
from fedbatch.setup import task
from fedbatch.wire.check import MessageError
from fedbatch.wire.codec import encode
from fedbatch.wire.held_out import SlopePlan
from fedbatch.wire.messages import PrivatePlan

NOISE = ("controller=fixed", "privacy.target_epsilon=null", "privacy.noise_multiplier=2.0", "executor=fused")


@pytest.fixture
def budget(tmp_path):
    return Budget(3.0, 1e-5, tmp_path / "own" / "ledger.jsonl")


def plan_of(loaded, clients=(0, 1, 2), **changed):
    values = {"round": 0, "phase": "fixed", "cohort_size": 4, "clip_norm": 1.0, "executor": "fused", **changed}
    params = values.pop("params", loaded.node_model.params.clone())
    return PrivatePlan(params, np.array(clients), **values)


def asked_until_refused(budget, loaded, plans):
    for count, plan in enumerate(plans):
        try:
            admit(budget, plan, loaded)
        except MessageError as refusal:
            assert "this node's own budget is spent" in str(refusal)
            return count
    raise AssertionError("never refused")


def test_repeating_a_question_is_charged_without_amplification(make_task, budget):
    loaded = make_task("example_local", *NOISE)
    count = asked_until_refused(budget, loaded, [plan_of(loaded)] * 200)
    q = loaded.privacy.terms.sample_rate(loaded.controller.phases[0])
    spent = [(q, 2.0, 1), (1.0, 2.0, count - 1)]
    assert 1 < count < 10 and epsilon(spent, 1e-5) <= 3, "by the tightest accountant, which is not the node's"
    assert rdp_epsilon(divergences([(q, 2.0, 1), (1.0, 2.0, count)]), 1e-5) > 3 * 0.8, "and most of it was to be had"
    assert len(ledger.peek(budget.file)) == count


def test_the_account_is_for_its_owner_only(make_task, budget, caplog):
    loaded, before = make_task("example_local", *NOISE), os.umask(0)
    try:
        admit(budget, plan_of(loaded), loaded)
    finally:
        os.umask(before)
    assert budget.file.stat().st_mode & 0o777 == 0o600 and not caplog.text
    budget.file.chmod(0o602)
    admit(budget, plan_of(loaded, round=1), loaded)
    assert "node-config ledger: " in caplog.text and f"change it; chmod 600 {budget.file}" in caplog.text


@pytest.mark.parametrize("what", ["round", "params", "attempt", "nonce", "executor", "clients"])
def test_no_way_of_asking_is_free(make_task, budget, what):
    loaded = make_task("example_local", *NOISE)
    values = {
        "round": range(10**4),
        "params": (torch.full_like(loaded.node_model.params, float(k)) for k in range(10**4)),
        "attempt": range(10**4),
        "nonce": map(str, range(10**4)),
        "executor": ["fused", "loop", "vmap"] * 3000,
        "clients": [(0,), (0, 1), (0, 2), (0, 1, 2)] * 3000,
    }[what]
    count = asked_until_refused(budget, loaded, (plan_of(loaded, **{what: value}) for value in values))
    charged = [(r.sample_rate, r.noise_multiplier, r.steps) for r in ledger.peek(budget.file)]
    assert count == len(charged) and epsilon(charged, 1e-5) <= 3


def test_all_clients_and_runs_count_together(make_config, budget):
    """Another config may deal the same examples to other clients."""
    loaded = task.load(make_config("privacy=example_local", *NOISE).to_json())
    count = asked_until_refused(budget, loaded, [plan_of(loaded, (0,))] * 99)
    with pytest.raises(MessageError, match="budget is spent"):
        admit(budget, plan_of(loaded, (1,)), loaded)
    other = task.load(make_config("privacy=example_local", *NOISE, "seed=5").to_json())
    asked_until_refused(budget, other, [plan_of(other, (0,))] * 99)
    of_0 = [(r.sample_rate, r.noise_multiplier, r.steps) for r in ledger.peek(budget.file)]
    assert len(of_0) >= count and epsilon(of_0, 1e-5) <= 3


def test_shares_are_charged_as_what_they_are_alone(make_task, budget):
    loaded = make_task("example_distributed", *NOISE, "privacy.min_clients=4")
    admit(Budget(500.0, 1e-5, budget.file), plan_of(loaded, (0,)), loaded)
    (entry,) = ledger.peek(budget.file)
    assert entry.noise_multiplier == pytest.approx(2.0 / 4**0.5)


@pytest.mark.parametrize("mechanism", ["client_central", "example_central"])
def test_noise_of_the_server_protects_nobody_from_it(make_task, budget, mechanism):
    loaded = make_task(mechanism, *NOISE)
    with pytest.raises(MessageError, match="the server adds the noise; use privacy=example_local"):
        admit(budget, plan_of(loaded), loaded)
    assert not budget.file.exists()


def test_questions_about_held_out_examples_are_charged_too(make_task, budget):
    loaded = make_task("example_local", *NOISE, "client_holdout=0.2", "privacy.accuracy_noise=2")
    ask = SlopePlan(loaded.node_model.params.clone(), np.array([0]), 0, 1.0, 0.5, statistic="correct")
    admit(budget, ask, loaded)
    (entry,) = ledger.peek(budget.file)
    assert (entry.sample_rate, entry.noise_multiplier, entry.clients) == (1.0, 4.0, None)


def test_the_secret_is_the_nodes_own(make_config, tmp_path):
    text = make_config("privacy=example_local", *NOISE).to_json()
    own = with_own_secret(text, {"secret_file": str(tmp_path / "mine")})
    assert json.loads(own)["privacy"]["secret_file"] == str(tmp_path / "mine")
    with pytest.raises(ConfigError, match="the run has no privacy"):
        with_own_secret(make_config().to_json(), {"secret_file": "x"})


@pytest.mark.parametrize(
    ("node_config", "said"),
    [
        ({"max_epsilon": 1}, "needs ledger and secret_file too"),
        ({"max_epsilon": "much", "ledger": "l", "secret_file": "s"}, "could not convert"),
        ({"max_epsilon": 0, "ledger": "l", "secret_file": "s"}, "need max_epsilon > 0"),
        ({"max_epsilon": 1, "delta": 2, "ledger": "l", "secret_file": "s"}, "delta in"),
    ],
)
def test_an_incomplete_budget_is_refused(node_config, said):
    with pytest.raises(ConfigError, match=said):
        budget_of(node_config)
    assert budget_of({"partition-id": 0}) is None


def test_a_node_answers_until_its_budget_is_spent(make_config, tmp_path):
    config = make_config("privacy=example_local", *NOISE)
    grid = LocalGrid(client_app.app, 1, {"config": config.to_json()}, by_reference=False)
    (context,) = (
        (each for node, each in grid._contexts.items() if node != 1)
        if len(grid._contexts) > 1
        else grid._contexts.values()
    )
    own = {"max_epsilon": 3.0, "ledger": str(tmp_path / "ledger.jsonl"), "secret_file": str(tmp_path / "secret")}
    (tmp_path / "secret").write_bytes(b"k" * 32)
    context.node_config.update(own)
    loaded = task.load(config.to_json())
    (node,) = grid.get_node_ids()
    errors = []
    for _ in range(12):
        content = encode(plan_of(loaded))
        grid.push_messages([Message(content, node, "train")])
        (answer,) = grid.pull_messages(list(grid._replies))
        errors.append(answer.has_error())
    assert not errors[0] and errors[-1] and errors == sorted(errors)
    assert len(ledger.peek(tmp_path / "ledger.jsonl")) == errors.index(True)
