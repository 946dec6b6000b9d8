"""FedPer: what is named stays at the client, and all else is local SGD."""

import numpy as np
import pytest
import torch
from torch import nn

from fedbatch.clients import FedPer
from fedbatch.core.errors import ConfigError
from fedbatch.executors import vmap
from fedbatch.executors.loop import loop
from fedbatch.models.flat import FlatModel
from fedbatch.setup import task
from tests.clients.quadratic import SIZE, Quadratic
from tests.conftest import run

LR, STEPS = 0.2, 4
COHORTS = [[0, 2], [1, 3], [0, 1], [2, 3]] * 6


def fedper(problem, cohorts, stays):
    """By hand: client k's values of the places that stay are its own, and the server's never change."""
    w, own = np.zeros(SIZE), {}
    for cohort in cohorts:
        ends = []
        for k in cohort:
            v = np.where(stays, own.get(k, w), w)
            for _ in range(STEPS):
                v = v - LR * problem.gradient(k, v)
            own[k] = v
            ends.append(np.where(stays, w, v))
        w = np.mean(ends, axis=0)
    return w, own


@pytest.mark.parametrize("executor", [loop, vmap.best])
def test_it_is_what_is_done_by_hand(executor):
    problem, stays = Quadratic(), np.array([False, True, False])
    work = FedPer(LR, epochs=None, steps=STEPS, places=torch.tensor([1]))
    got = problem.run(work, COHORTS, executor)
    w, own = fedper(problem, COHORTS, stays)
    np.testing.assert_allclose(got[-1], w, rtol=1e-10, atol=1e-12)
    assert got[-1][1] == 0
    for client, v in own.items():
        np.testing.assert_allclose(problem.kept[client].numpy(), [v[1], 1.0], rtol=1e-10)


def test_a_layer_that_is_named_by_a_number():
    model = FlatModel(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)))
    assert FedPer(LR, personal=[2]).on_model(model).places.tolist() == list(range(9, 17))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.header, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.header(self.body(x)))


@pytest.mark.parametrize(
    ("personal", "expected"),
    [
        (None, range(36, 46)),
        (["head"], range(36, 46)),
        ("head", range(36, 46)),
        (["*.bias"], [*range(12, 16), *range(32, 36), *range(44, 46)]),
        (["body.weight", "head.bias"], [*range(12), 44, 45]),
    ],
)
def test_names_of_layers_parameters_and_patterns(personal, expected):
    work = FedPer(LR, personal=personal).on_model(FlatModel(Net()))
    assert work.places.tolist() == list(expected)
    assert work.own["personal"] == len(list(expected))


@pytest.mark.parametrize(
    ("personal", "message"),
    [
        ("[haed]", "client_work.personal: no parameter of the model is named haed; its last layers are"),
        ('["*"]', "client_work.personal: all parameters stay"),
    ],
)
def test_a_name_that_is_not_there_is_one_line(make_config, personal, message):
    with pytest.raises(ConfigError, match=message.replace("*", r"\*")):
        task.load(make_config("client_work=fedper", f"client_work.personal={personal}").to_json())


def test_clients_with_two_classes_each_are_scored_by_their_own_heads(make_config):
    work = ("client_work=fedper", "client_work.epochs=3", "server_optimizer.lr=1", "client_holdout=0.3")
    skewed = ("partitioner=pathological", "partitioner.num_classes_per_partition=2", "controller=fixed")
    rows, _, state = run(make_config(*work, *skewed, "rounds=8", "cohort_size=20", "sampling=all"))
    assert rows[-1]["client_accuracy_p50"] > rows[-1]["test_accuracy"] + 0.2
    config = make_config(*work, *skewed, folder="other")
    head = task.load(config.to_json()).work("small").places
    start = task.load(config.to_json()).new_model().params
    assert torch.equal(state.params[head], start[head]) and not torch.equal(state.params[:9], start[:9])


@pytest.mark.parametrize("personal", [0.5, [0.5], {"a": 1}, [["head"]]])
def test_what_names_no_layer_is_one_line(personal):
    from torch import nn

    from fedbatch.clients import FedBN, FedPer
    from fedbatch.models.flat import FlatModel

    model = FlatModel(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    for work in (FedPer, FedBN):
        with pytest.raises(ValueError, match=r"client_work\.personal must be names of layers"):
            work(lr=0.1, personal=personal).on_model(model)
