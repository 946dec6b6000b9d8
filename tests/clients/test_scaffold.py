"""SCAFFOLD against thirty lines of NumPy, where FedAvg stalls."""

import numpy as np
import pytest

from fedbatch.clients import LocalSGD, Scaffold
from fedbatch.executors import vmap
from fedbatch.executors.loop import loop
from tests.clients.quadratic import SIZE, Quadratic
from tests.conftest import run

LR, STEPS = 0.2, 5
COHORTS = [[0, 2], [1, 3], [0, 1], [2, 3], [0, 3]] * 12


def scaffold(problem, cohorts):
    """Algorithm 1 of Karimireddy et al. (2020), option II, with a server rate of 1, as printed."""
    x, c = np.zeros(SIZE), np.zeros(SIZE)
    controls = np.zeros((len(problem.clients), SIZE))
    points = []
    for cohort in cohorts:
        changes, control_changes = [], []
        for i in cohort:
            y = x.copy()
            for _ in range(STEPS):
                y = y - LR * (problem.gradient(i, y) - controls[i] + c)
            new = controls[i] - c + (x - y) / (STEPS * LR)
            changes.append(y - x)
            control_changes.append(new - controls[i])
            controls[i] = new
        x = x + np.mean(changes, axis=0)
        c = c + len(cohort) / len(problem.clients) * np.mean(control_changes, axis=0)
        points.append(x)
    return np.array(points)


@pytest.mark.parametrize("executor", [loop, vmap.best])
def test_it_is_the_published_algorithm_to_the_last_digits(executor):
    problem = Quadratic()
    got = problem.run(Scaffold(LR, epochs=None, steps=STEPS), COHORTS, executor)
    np.testing.assert_allclose(got, scaffold(problem, COHORTS), rtol=1e-10, atol=1e-10)


def test_it_finds_the_minimum_where_local_sgd_stalls_beside_it():
    problem = Quadratic()
    everyone = [[0, 1, 2, 3]] * 80
    best = problem.minimum()
    stalled = problem.run(LocalSGD(LR, epochs=None, steps=STEPS), everyone, vmap.best)
    found = problem.run(Scaffold(LR, epochs=None, steps=STEPS), everyone, vmap.best)
    assert np.linalg.norm(found[-1] - best) < 1e-6 < 1e-2 < np.linalg.norm(stalled[-1] - best)
    np.testing.assert_allclose(stalled[-1], stalled[-2], atol=1e-9)  # it has converged, to another point


def test_with_one_step_and_everybody_it_is_local_sgd():
    problem, everyone = Quadratic(), [[0, 1, 2, 3]] * 20
    plain = problem.run(LocalSGD(LR, epochs=None, steps=1), everyone)
    np.testing.assert_allclose(problem.run(Scaffold(LR, epochs=None, steps=1), everyone), plain, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_on_clients_with_two_classes_each_it_beats_fedavg_and_ditto_serves_clients_better(make_config, seed):
    """Digits, 5 of 20 clients a round, 5 local epochs, 60 rounds; gaps found: 3.1 and 4.4 points, 4.9 and 5.6."""
    task_ = ("population=20", "cohort_size=5", "partitioner=pathological", "partitioner.num_classes_per_partition=2")
    work = ("client_batch_size=8", "client_work.epochs=5", "client_work.lr=0.1", "weighting=uniform", "rounds=60")
    work = (*work, "server_optimizer.lr=1", "learning_rate.decay=none", "model.width=32", "client_holdout=0.2")
    settings = ("dataset=digits", *task_, *work, "controller=fixed", "executor=vmap", f"seed={seed}")
    last = {
        name: run(make_config(f"client_work={name}", *settings, base=(), folder=name))[0][-1]
        for name in ("local_sgd", "scaffold", "ditto")
    }
    assert last["scaffold"]["test_accuracy"] > last["local_sgd"]["test_accuracy"] + 0.02
    assert last["ditto"]["test_accuracy"] == last["local_sgd"]["test_accuracy"]
    assert last["ditto"]["client_accuracy_p50"] > last["local_sgd"]["client_accuracy_p50"] + 0.03
