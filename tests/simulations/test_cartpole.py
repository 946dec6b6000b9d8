import numpy as np
import polars as pl
import pytest
import torch


def test_accelerations_solve_the_equations_of_lagrange():
    from simulations.cartpole_policy import accelerations

    state, force = np.random.default_rng(0).normal(size=(50, 4)), np.linspace(-10, 10, 50)
    cart, pole = accelerations(state, force)
    m, half = 0.1, 0.5  # a uniform rod of length 1 m on a cart of 1 kg
    for (_, _, angle, turning), f, a, b in zip(state, force, cart, pole, strict=True):
        inertia = [[1.1, m * half * np.cos(angle)], [m * half * np.cos(angle), 4 / 3 * m * half**2]]
        forces = [f + m * half * turning**2 * np.sin(angle), m * 9.8 * half * np.sin(angle)]
        np.testing.assert_allclose([a, b], np.linalg.solve(inertia, forces), rtol=1e-10)


def test_gradients_are_those_of_autograd_for_each_episode():
    from simulations.cartpole_policy import LONGEST, gradients, play, started

    draws = np.random.default_rng(1)
    parameters = started(2, 0) + 0.3 * draws.normal(size=started(2, 0).shape)
    episodes, baseline = play(parameters, 3, draws), draws.normal(size=(LONGEST, 2))
    found = gradients(parameters, episodes, baseline)
    for learner in range(2):
        theta = torch.tensor(parameters[learner], requires_grad=True)
        w, b, v, c = theta[:32].reshape(8, 4), theta[32:40], theta[40:48], theta[48]
        for one in range(3):
            steps = int(episodes.alive[:, learner, one].sum())
            assert not episodes.alive[steps:, learner, one].any()
            states = torch.tensor(episodes.states[:steps, learner, one])
            logit = torch.tanh(states @ w.T + b) @ v + c
            right = torch.tensor((episodes.surprise[:steps, learner, one] > 0).astype(float))
            log_p = right * torch.nn.functional.logsigmoid(logit) + (1 - right) * torch.nn.functional.logsigmoid(-logit)
            left = torch.arange(steps, 0, -1) - torch.tensor(baseline[:steps, learner])
            (expected,) = torch.autograd.grad((log_p * left).sum(), theta)
            np.testing.assert_allclose(found[learner, one], expected.numpy(), rtol=1e-8, atol=1e-10)


def test_the_baseline_is_the_mean_of_what_is_left_and_forgets_by_episodes():
    from simulations.cartpole_policy import LONGEST, Episodes, followed

    alive = np.array([[[1, 1]], [[1, 0]], [[1, 0]]], bool)  # episodes of three steps and of one
    episodes = Episodes(np.zeros((3, 1, 2, 4)), np.zeros((3, 1, 2)), alive)
    before = np.full((LONGEST, 1), 10.0)
    after = followed(before, episodes, half_life=2)
    np.testing.assert_allclose(after[:, 0], [6.0, 6.0, 5.5, *[10.0] * (LONGEST - 3)])  # half of 2, 2 and 1
    assert (before == 10).all()


def test_moments_are_unbiased():
    from simulations.cartpole import moments

    draws, mean = np.random.default_rng(0), np.array([0.3, -0.1])
    _, trace, grad_sq = moments(mean + draws.normal(size=(20_000, 4, 2)) * [1.0, 2.0])
    assert trace.mean() == pytest.approx(5.0, abs=0.1) and grad_sq.mean() == pytest.approx(0.1, abs=0.03)


def rows(noise=40.0, critical=40.0):
    """Runs by S = 10 (1 + B_crit / B), four seeds that differ a little."""
    about = {"task": "CartPole", "tokens": 1, "examples": float("inf"), "tuning": False, "rate": 0.1, "b_start": 1.0}
    return pl.DataFrame(
        [
            about
            | {"goal": 101.0, "batch": batch, "seed": seed, "b_noise": noise * (1 + 0.01 * seed)}
            | {"steps": 10 * (1 + critical / batch) * (1 + 0.01 * (seed - 1.5))}
            for batch in (8, 32, 128, 512)
            for seed in range(4)
        ]
    )


@pytest.mark.parametrize("noise, expected", [(40.0, "100 holds"), (200.0, "100 does not hold"), (79.0, "cannot be")])
def test_the_prediction_is_judged_by_the_interval_of_its_ratio(noise, expected):
    from simulations.cartpole_report import markdown

    told = markdown(rows(noise))
    assert expected in told
    assert "| 100 | 10 |" in told and f"| {noise * 1.015:.3g} |" in told


@pytest.mark.slow
def test_the_quick_form(tmp_path, capsys):
    from simulations import cartpole

    cartpole.main(["--quick", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)])
    found = pl.read_parquet(tmp_path / "results" / "cartpole.parquet")
    assert found["steps"].is_finite().mean() > 0.7  # some learners of a small batch do not get there in time
    assert set(found["batch"]) == set(cartpole.QUICK.batches)
    assert "noise scale there" in capsys.readouterr().out
    assert (tmp_path / "figures" / "cartpole.png").stat().st_size > 10_000
