import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg
from flwr.serverapp.strategy.strategy import Strategy

from fedbatch.batch.noise_scale import estimate
from fedbatch.controllers import Adaptive, NoiseScaleLadder, NoiseScaleSwitch
from fedbatch.controllers.phase import Phase
from fedbatch.runtime.flower import new_run, stamp
from fedbatch.runtime.local import run_locally
from fedbatch.strategy import NoiseScale
from simulations.drop_in.client_app import app as client_app
from simulations.drop_in.server_app import app as server_app

ROOT = Path(__file__).parents[1]


class Nodes:
    """As much of a Grid as strategies ask for."""

    def __init__(self, count):
        self.ids = list(range(10, 10 + count))

    def get_node_ids(self):
        return self.ids


def arrays(*values, **more):
    trained = {"w": Array(np.array(values, dtype=np.float32))}
    return ArrayRecord({**trained, **{name: Array(np.array(value)) for name, value in more.items()}})


def configure(strategy, sent, nodes=4, round_=1):
    new_run()
    config = ConfigRecord()
    messages = list(strategy.configure_train(round_, sent, config, Nodes(nodes)))
    return [stamp(message, f"m{i}") for i, message in enumerate(messages)], config


def reply(message, record, examples):
    content = RecordDict({"a": record, "m": MetricRecord({"num-examples": examples, "loss": 1.0})})
    return Message(content, reply_to=message)


def test_the_noise_scale_is_that_of_what_clients_changed():
    strategy = NoiseScale(FedAvg(), unit="examples")
    messages, _ = configure(strategy, arrays(1.0, 1.0, steps=5))
    updates, examples = [[2.0, 0.0], [0.0, 2.0], [2.0, 1.0], [1.0, 1.0]], [10, 20, 30, 40]
    replies = [
        reply(message, arrays(1 - u, 1 - v, steps=9), count)
        for message, (u, v), count in zip(messages, updates, examples, strict=True)
    ]
    aggregated, metrics = strategy.aggregate_train(1, iter(replies))  # a Grid may hand out replies one by one
    g, b = np.array(updates), np.array(examples)
    mean = b @ g / b.sum()
    expected = estimate((g**2).sum(1), b, mean @ mean)
    assert metrics["noise_scale"] == pytest.approx(expected.scale)
    assert metrics["noise_scale_low"] <= metrics["noise_scale"] <= metrics["noise_scale_high"]
    assert metrics["batch_examples"] == 100 and metrics["loss"] == 1.0
    np.testing.assert_allclose(aggregated["w"].numpy(), 1 - mean)


def test_in_clients_each_update_counts_once():
    strategy = NoiseScale(FedAvg())
    messages, _ = configure(strategy, arrays(0.0, 0.0))
    updates = np.array([[2.0, 0.0], [0.0, 2.0], [2.0, 1.0], [1.0, 1.0]])
    replies = [reply(message, arrays(*-update), 7) for message, update in zip(messages, updates, strict=True)]
    _, metrics = strategy.aggregate_train(1, replies)
    expected = estimate((updates**2).sum(1), np.ones(4), (updates.mean(0) ** 2).sum())
    assert (metrics["noise_scale"], metrics["batch_clients"]) == (pytest.approx(expected.scale), 4)


def test_over_rounds_it_finds_the_noise_scale_that_was_put_in():
    rng, size, examples = np.random.default_rng(0), 50, 8
    gradient = np.full(size, 0.2)  # |G|^2 = 2; noise of one example has variance 1 in each direction: B = 50 / 2
    strategy = NoiseScale(FedAdam(), unit="examples", decay=0.99)
    for round_ in range(1, 301):
        messages, _ = configure(strategy, arrays(*np.zeros(size)), nodes=10, round_=round_)
        drawn = gradient + rng.normal(size=(len(messages), size)) / examples**0.5
        replies = [reply(m, arrays(*(-0.1 * g)), examples) for m, g in zip(messages, drawn, strict=True)]
        _, metrics = strategy.aggregate_train(round_, replies)
    assert metrics["noise_scale"] == pytest.approx(25, rel=0.1)


def test_running_statistics_of_batch_norm_are_no_update():
    strategy = NoiseScale(FedAvg())
    messages, _ = configure(strategy, arrays(0.0, **{"bn.running_mean": 0.0}))
    for value, message in enumerate(messages):
        messages[value] = reply(message, arrays(-1.0, **{"bn.running_mean": float(value)}), 1)
    _, metrics = strategy.aggregate_train(1, messages)
    assert metrics["noise_scale"] == 0  # all clients agree


def test_replies_that_cannot_be_read_are_left_to_the_strategy():
    strategy = NoiseScale(FedAvg())
    messages, _ = configure(strategy, arrays(0.0), nodes=6)
    good = [reply(message, arrays(value), 1) for message, value in zip(messages[:2], (-1.0, -2.0), strict=True)]
    failed = Message(Error(0, "no memory"), reply_to=messages[2])
    nan = reply(messages[3], arrays(np.nan), 1)
    _, metrics = strategy.aggregate_train(1, [*good, failed, nan])
    assert metrics["batch_clients"] == 2
    with pytest.raises(Exception, match="same keys"):  # the strategy's own words
        strategy.aggregate_train(2, [*good, reply(messages[4], ArrayRecord({"v": Array(np.zeros(1))}), 1)])


def test_one_reply_says_nothing_of_noise():
    strategy = NoiseScale(FedAvg())
    messages, _ = configure(strategy, arrays(0.0))
    _, metrics = strategy.aggregate_train(1, [reply(messages[0], arrays(-1.0), 1)])
    assert "noise_scale" not in metrics


def noisy_round(strategy, round_, nodes=20):
    messages, config = configure(strategy, arrays(0.0, 0.0), nodes=nodes, round_=round_)
    rng = np.random.default_rng(round_)
    replies = [reply(m, arrays(*(rng.normal(size=2) - 0.1)), 1) for m in messages]
    strategy.aggregate_train(round_, replies)
    return len(messages), config.get("batch-size")


def test_a_controller_sets_nodes_and_batch_size_of_the_next_round():
    phases = Phase("small", 5, 8), Phase("large", 19, 32)
    controller = NoiseScaleSwitch(*phases, up=0.01, down=0.0, settle_rounds=3)
    strategy = NoiseScale(FedAvg(), controller=controller)
    rounds = [noisy_round(strategy, round_) for round_ in range(1, 6)]
    assert rounds[:3] == [(5, 8)] * 3 and rounds[3:] == [(19, 32)] * 2
    assert strategy.control.phase == "large" and strategy.control.since_round == 3


def test_the_ladder_sees_single_rounds_there_too():
    """Noise scale of a client's update: trace 2 over |G|^2 of 0.02, far above 10 nodes."""
    strategy = NoiseScale(FedAvg(), controller=NoiseScaleLadder(Phase("small", 5, 8), Phase("large", 20, 8)))
    nodes = [noisy_round(strategy, round_)[0] for round_ in range(1, 60)]
    assert nodes[:12] == [5] * 12 and nodes == sorted(nodes) and nodes[-1] == 20 and 10 in nodes


@pytest.mark.parametrize("cohort", [1, 2, 29, 48, 49])
def test_no_node_is_lost_to_rounding(cohort):  # int(49 * (1 / 49)) is 0
    phase = Phase("adaptive", cohort)
    controller = Adaptive(phase, 1.0, 2, 49, settle_rounds=1000)
    strategy = NoiseScale(FedAvg(min_train_nodes=0), controller=controller)
    messages, config = configure(strategy, arrays(0.0), nodes=49)
    assert len(messages) == cohort and "batch-size" not in config


class Plain(Strategy):
    configure_train = aggregate_train = configure_evaluate = aggregate_evaluate = summary = None


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="unit must be clients or examples"):
        NoiseScale(FedAvg(), unit="rounds")
    with pytest.raises(ValueError, match="Plain has no fraction_train to control"):
        NoiseScale(Plain(), controller=Adaptive(Phase("a", 2), 1.0, 2, 3))


def run_drop_in(rounds):
    random.seed(0)  # by which Flower samples nodes
    torch.manual_seed(0)
    run_locally(server_app, client_app, 10, {"num-rounds": rounds})


@pytest.mark.slow
def test_the_app_of_others_learns_and_shows_its_noise_scale(capsys):
    run_drop_in(30)
    lines = capsys.readouterr().out.splitlines()[1:]
    first, last = lines[0].split(), lines[-1].split()
    assert len(lines) == 30 and float(last[1]) > 0.6 > float(first[1]) and last[2] == "5" and float(last[3]) > 0


@pytest.fixture
def results(monkeypatch):
    """What `Strategy.start` returned, call after call."""
    kept, start = [], Strategy.start

    def keep(*arguments, **more):
        kept.append(start(*arguments, **more))
        return kept[-1]

    monkeypatch.setattr(Strategy, "start", keep)
    return kept


def test_around_a_strategy_nothing_changes(results, monkeypatch):
    run_drop_in(3)
    monkeypatch.setattr("simulations.drop_in.server_app.NoiseScale", lambda strategy: strategy)
    with pytest.raises(KeyError, match="noise_scale"):  # of the table: nobody measures it
        run_drop_in(3)
    wrapped, alone = (result.arrays for result in results)
    for name, array in alone.items():
        assert np.array_equal(array.numpy(), wrapped[name].numpy())


@pytest.mark.slow
def test_the_app_of_others_on_ray():
    pytest.importorskip("ray")
    command = [sys.executable, "-m", "simulations.drop_in", "--ray", "--rounds", "2", "--clients", "4"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].startswith("round  accuracy") and len(done.stdout.splitlines()) == 3
