"""Ditto against NumPy: the global model is that of local SGD, and each client has one of its own between."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedbatch.clients import Ditto, LocalSGD
from fedbatch.executors import vmap
from fedbatch.executors.loop import loop
from fedbatch.setup import task
from tests.clients.quadratic import SIZE, Quadratic
from tests.conftest import run

LR, STEPS, PULL = 0.2, 4, 0.5
COHORTS = [[0, 2], [1, 3], [0, 1], [2, 3]] * 8


def ditto(problem, cohorts):
    """Algorithm 1 of Li et al. (2021); a client's own model begins where it is first asked."""
    w, own = np.zeros(SIZE), {}
    for cohort in cohorts:
        ends = []
        for k in cohort:
            v, u = own.get(k, w), w.copy()
            for _ in range(STEPS):
                v = v - LR * (problem.gradient(k, v) + PULL * (v - w))
                u = u - LR * problem.gradient(k, u)
            own[k] = v
            ends.append(u)
        w = np.mean(ends, axis=0)
    return w, own


@pytest.mark.parametrize("executor", [loop, vmap.best])
def test_it_is_the_published_algorithm(executor):
    problem = Quadratic()
    got = problem.run(Ditto(LR, epochs=None, steps=STEPS, pull=PULL), COHORTS, executor)
    w, own = ditto(problem, COHORTS)
    np.testing.assert_allclose(got[-1], w, rtol=1e-10)
    for client, v in own.items():
        np.testing.assert_allclose(problem.kept[client].numpy(), [*v, 1.0], rtol=1e-10)


def test_the_global_model_is_that_of_local_sgd():
    problem = Quadratic()
    plain = problem.run(LocalSGD(LR, epochs=None, steps=STEPS), COHORTS)
    got = problem.run(Ditto(LR, epochs=None, steps=STEPS, pull=PULL), COHORTS)
    np.testing.assert_allclose(got, plain, rtol=1e-12, atol=1e-12)


def test_it_beats_local_sgd_on_clients_that_differ():
    """Each client's own loss, which its own model is for."""
    problem = Quadratic()
    w = problem.run(Ditto(LR, epochs=None, steps=STEPS, pull=PULL), [[0, 1, 2, 3]] * 30, vmap.best)[-1]

    def loss(k, v):
        return np.mean((problem.x[k] @ v - problem.y[k]) ** 2)

    own = {k: v.numpy()[:SIZE] for k, v in problem.kept.items()}
    assert all(loss(k, own[k]) < 0.5 * loss(k, w) for k in range(4))


def accuracies(config, state, run_task):
    """Accuracy of each client on what it holds out, by the files that clients keep and a forward of their own."""
    found = []
    for client, version in enumerate(state.versions.tolist()):
        path = Path(config.run_dir) / "clients" / str(client) / f"round-{version:08d}.npy"
        params = torch.from_numpy(np.load(path)[:-1]) if version else state.params
        x, y = run_task.examples(run_task.held_out(client))
        run_task.node_model.load(params, state.buffers)
        found.append(float((run_task.node_model(x).argmax(dim=1) == y).double().mean()))
    return found


@pytest.mark.parametrize("nodes", [1, 3])
def test_clients_are_scored_by_their_own_models(make_config, nodes):
    work = ("client_work=ditto", "client_work.pull=0.01", "client_work.epochs=5", "server_optimizer.lr=1")
    skewed = ("partitioner=pathological", "partitioner.num_classes_per_partition=2", "controller=fixed")
    config = make_config(*work, *skewed, "client_holdout=0.3", "rounds=8", "cohort_size=10", f"nodes={nodes}")
    rows, _, state = run(config)
    own = accuracies(config, state, task.load(config.to_json()))
    for q in (5, 25, 50, 75, 95):
        assert rows[-1][f"client_accuracy_p{q}"] == pytest.approx(np.percentile(own, q), abs=1e-9)
    assert rows[-1]["client_accuracy_p50"] > rows[-1]["test_accuracy"] + 0.1
