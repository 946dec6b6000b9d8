import numpy as np
import pytest
import torch


@pytest.fixture
def cartpole():
    from simulations import cartpole

    return cartpole


class Script:
    """Two games: the first ends in step 3 and starts anew in step 4; the second is cut by the clock in step 5."""

    def __init__(self):
        self.step_number = 0

    def step(self, actions):
        self.step_number += 1
        t = self.step_number
        ended, cut = np.array([t == 3, False]), np.array([False, t == 5])
        reward = np.array([0.0 if t == 4 else 1.0, 0.0 if t == 6 else 1.0])
        return np.full((2, 4), 0.1 * t, np.float32), reward, ended, cut, {}


def test_targets_by_hand(cartpole, monkeypatch):
    monkeypatch.setattr(cartpole, "HORIZON", 6)
    weights = cartpole.draw(torch.Generator().manual_seed(0))
    values = [float(cartpole.forward(weights, torch.full((4,), 0.1 * t))[1]) for t in range(7)]
    batch, seen, fresh = cartpole.play(
        Script(), weights, np.zeros((2, 4), np.float32), np.zeros(2, bool), torch.Generator().manual_seed(0)
    )
    g = cartpole.DISCOUNT
    first = [1 + g + g**2, 1 + g, 1.0]  # the pole fell: nothing comes after
    assert batch["target"][0, :3].tolist() == pytest.approx(first)
    assert float(batch["target"][0, 5]) == pytest.approx(1 + g * values[6])
    assert float(batch["target"][1, 4]) == pytest.approx(1 + g * values[5])  # cut short: the value of where it was
    assert float(batch["target"][1, 3]) == pytest.approx(1 + g * (1 + g * values[5]))
    assert batch["real"].tolist() == [[True, True, True, False, True, True], [True] * 5 + [False]]
    assert seen[0, 0] == pytest.approx(0.6) and not fresh.any()


def test_the_loss_leaves_out_the_steps_that_only_start_an_episode(cartpole):
    weights = cartpole.draw(torch.Generator().manual_seed(0))
    own = {"seen": torch.randn(4, 4), "action": torch.tensor([0, 1, 1, 0]), "target": torch.randn(4)}
    kept = cartpole.loss(weights, own | {"real": torch.tensor([True, False, True, True])})
    changed = own | {"target": own["target"] + torch.tensor([0.0, 9.0, 0.0, 0.0])}
    assert float(kept) == float(cartpole.loss(weights, changed | {"real": torch.tensor([True, False, True, True])}))
    assert float(kept) != float(cartpole.loss(weights, changed | {"real": torch.ones(4, dtype=torch.bool)}))


def test_a_run_is_told_by_its_seed_and_a_policy_that_knows_nothing_fails(cartpole, monkeypatch):
    monkeypatch.setattr(cartpole, "most_rounds", lambda batch: 4)
    one, same, other = (cartpole.training(64, 0.01, seed) for seed in (0, 0, 1))
    assert np.array_equal(one.losses, same.losses) and not np.array_equal(one.traces, other.traces)
    assert len(one.traces) == 4 and list(one.rounds) == [0, 1, 2, 3, 4]
    assert 0.9 < one.losses[0] < 1


def test_the_game_itself_ends_and_starts_as_play_takes_it(cartpole):
    games = cartpole.games_of(2)
    games.reset(seed=0)
    fell = []
    for _ in range(40):  # always to the right: the pole falls within a dozen steps
        seen, reward, ended, cut, _ = games.step(np.ones(2, int))
        fresh = [i for i in range(2) if fell and fell[-1][i]]
        assert all(reward[i] == 0 and not ended[i] and abs(seen[i]).max() < 0.06 for i in fresh)
        assert all(abs(seen[i][2]) > 0.2 for i in range(2) if ended[i]) and not cut.any()
        fell.append(ended)
    assert np.array(fell).sum(0).min() >= 2
    games.reset(seed=0)
    games.unwrapped.steps[:] = 499
    *_, ended, cut, _ = games.step(np.ones(2, int))
    assert cut.all() and not ended.any()


def test_a_run_that_diverges_is_none(cartpole, monkeypatch):
    monkeypatch.setattr(cartpole, "DISCOUNT", float("nan"))
    assert cartpole.training(64, 0.01, 0) is None


@pytest.mark.slow
def test_it_learns(cartpole, monkeypatch):
    monkeypatch.setattr(cartpole, "most_rounds", lambda batch: 150)
    assert cartpole.training(1024, 0.016, 0).losses[-10:].mean() < 0.7
