"""Calibration over clients through whole runs: what travels adds up to what one place would compute."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedbatch import client_app, server_app
from fedbatch.core.errors import ConfigError
from fedbatch.metrics.evaluate import logits_of
from fedbatch.metrics.report import Calibration, Predicted
from fedbatch.metrics.scaling import SharedTemperature
from fedbatch.node.held_out import PARTS, sums
from fedbatch.runtime.local import LocalGrid
from fedbatch.server.checkpoint import load_latest
from fedbatch.server.held_out import HeldOut
from fedbatch.setup import task
from fedbatch.wire.check import MessageError
from fedbatch.wire.codec import decode, encode
from fedbatch.wire.held_out import Sums, SumsPlan
from tests.conftest import run

HOLDOUT = ("controller=fixed", "executor=fused", "client_holdout=0.3", "rounds=2")


def predicted(config, part="all", clients=range(20)):
    """The last model's predictions of what clients hold out, in one place."""
    loaded, state = task.load(config.to_json()), load_latest(Path(config.run_dir) / "checkpoints")
    model = loaded.new_model()
    model.load(state.params, state.buffers)
    positions = np.concatenate([loaded.held_out(client)[PARTS[part]] for client in clients])
    return Predicted(logits_of(model, loaded.train_x[positions]).double(), loaded.train_y[positions])


@pytest.fixture
def server(make_config):
    config = make_config(*HOLDOUT, "nodes=2")
    grid = LocalGrid(client_app.app, 2, {"config": config.to_json()})
    made = server_app.new_server(task.load(config.to_json()), grid)
    return made, server_app.start(made)


def test_the_record_has_the_scores_of_all_clients_exactly(make_config):
    config = make_config(*HOLDOUT, "metrics=calibration", "nodes=3", "evaluate_every_rounds=0")
    rows, summary, _ = run(config)
    expected = Calibration().columns(predicted(config))
    expected.pop("mean_ece")
    found = {name: rows[-1][f"held_out_{name}"] for name in expected}
    assert found == pytest.approx(expected, abs=1e-12)
    assert rows[-1]["held_out_mean_ece"] > found["ece"]
    assert rows[-1]["test_nll"] == pytest.approx(rows[-1]["test_loss"], abs=1e-6)
    assert summary["calibration"]["before"]["held_out"]["ece"] == found["ece"]
    assert "held_out_ece" not in rows[0]


def test_a_shared_temperature_is_the_centralised_one_and_is_measured_on_other_examples(make_config):
    config = make_config(*HOLDOUT, "temperature=shared", "nodes=3")
    _, summary, _ = run(config)
    found = summary["calibration"]
    assert found["temperature"] == pytest.approx(SharedTemperature().fit(predicted(config, "fit")), abs=1e-12)
    other = predicted(config, "measure")
    scaled = Predicted(other.logits / found["temperature"], other.labels)
    for stage, pool in (("before", other), ("after", scaled)):
        expected = Calibration().columns(pool)
        assert found[stage]["held_out"]["ece"] == pytest.approx(expected["ece"], abs=1e-12)
        assert found[stage]["held_out"]["nll"] == pytest.approx(expected["nll"], abs=1e-12)
    assert found["after"]["test"]["accuracy"] == found["before"]["test"]["accuracy"]


@pytest.mark.slow
def test_clients_fit_their_own_temperatures(make_config):
    config = make_config(*HOLDOUT, "temperature=per_client", "nodes=3")
    _, summary, _ = run(config)
    own = [SharedTemperature().fit(predicted(config, "fit", [client])) for client in range(20)]
    found = summary["calibration"]
    assert found["temperature"] == pytest.approx(np.median(own)) and found["highest"] == pytest.approx(max(own))
    parts = [predicted(config, "measure", [client]) for client in range(20)]
    logits = torch.cat([part.logits / t for part, t in zip(parts, own, strict=True)])
    expected = Calibration().columns(Predicted(logits, torch.cat([part.labels for part in parts])))
    assert found["after"]["held_out"]["ece"] == pytest.approx(expected["ece"], abs=1e-12)
    assert "test" not in found["after"]


@pytest.mark.slow
def test_every_position_of_a_sequence_counts(make_config):
    tiny = ("model.layers=1", "model.heads=2", "model.width=8", "dataset.min_sequences=300")
    text = ("dataset=shakespeare_roles", *tiny, "population=4", "client_holdout=0.02", "rounds=1", "controller=fixed")
    base = ("cohort_size=2", "client_batch_size=2")
    rows, _, _ = run(make_config("model=gpt", *text, "metrics=calibration", base=base))
    assert rows[0]["held_out_examples"] > 50 and 0 <= rows[0]["held_out_ece"] <= 1


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["temperature=shared"], "client_holdout"),
        (["temperature=private", "client_holdout=0.2"], "set privacy"),
        (["temperature=shared", "client_holdout=0.2", "privacy=client_central"], "temperature=private"),
        (["client_holdout=0.2", "privacy=client_central"], "temperature=private or privacy.accuracy_noise"),
        (["metrics=calibration", "metrics.bins=0"], "bins"),
    ],
)
def test_what_cannot_be_fitted_is_refused(make_config, overrides, words):
    with pytest.raises(ConfigError, match=words):
        task.load(make_config("controller=fixed", *overrides).to_json())


def test_a_node_that_answers_with_another_length_is_left_out(server, monkeypatch):
    made, state = server
    honest = HeldOut(made, state).sums("counts_up_to", torch.ones(1, dtype=torch.float64))
    plain = LocalGrid.send_and_receive

    def lying(grid, messages, **options):
        for reply in plain(grid, messages, **options):
            answer = decode(Sums, reply.content)
            if answer.clients[0] == 0:
                reply.content = encode(Sums(answer.clients, torch.cat([answer.sums, answer.sums])))
            yield reply

    monkeypatch.setattr(LocalGrid, "send_and_receive", lying)
    left = HeldOut(made, state).sums("counts_up_to", torch.ones(1, dtype=torch.float64))
    assert 0 < float(left) < float(honest)


@pytest.mark.parametrize(("part", "statistic"), [("some", "bins"), ("all", "logits")])
def test_a_node_tells_nothing_but_what_it_knows(server, part, statistic):
    made, state = server
    ones = np.ones(2)
    plan = SumsPlan(state.params, state.buffers, np.arange(2), ones, part, statistic, torch.ones(1))
    with pytest.raises(MessageError, match="not known"):
        sums(plan, made.task)


def test_parts_are_disjoint_and_complete(server):
    made, _ = server
    for client in range(20):
        whole = made.task.held_out(client)
        assert sorted([*whole[PARTS["fit"]], *whole[PARTS["measure"]]]) == sorted(whole)
