"""A policy gradient on CartPole, whose clients are actors and whose batch is counted in observations.

Advantage actor-critic (Mnih et al. 2016) with Adam. Every actor plays HORIZON steps a round and sends one gradient, so
that the spread over actors gives the noise scale with all correlation within an actor in it.
"""

import math

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor
from torch.func import grad, vmap

from fedbatch.batch.noise_scale import estimate
from simulations.goals import Curve

HORIZON, LONGEST, DISCOUNT, WIDTH = 16, 500, 0.98, 32
VALUE_WEIGHT, ENTROPY_WEIGHT = 0.5, 0.01
EVALUATIONS, EVALUATION_ACTORS = 120, 64
BATCHES, GOALS, START_RATE = (64, 256, 1024, 4096), (0.6, 0.3), 0.004
"""A goal is the share of the longest episode that the policy misses."""

Weights = dict[str, Tensor]


def training(batch: int, rate: float, seed: int) -> Curve | None:
    """One run of ``batch / HORIZON`` actors, to somewhat below the lowest goal or to the end of its patience.

    None if it diverged.
    """
    actors, rounds = batch // HORIZON, most_rounds(batch)
    games, generator = games_of(actors), torch.Generator().manual_seed(seed)
    weights = draw(generator)
    optimizer = torch.optim.Adam(weights.values(), lr=rate)
    seen, every = games.reset(seed=seed)[0], max(1, rounds // EVALUATIONS)
    fresh = np.zeros(actors, bool)  # whose next step only starts a new episode
    evaluated, losses, traces, grad_sqs = [0], [missed(weights, seed)], [], []
    for round_ in range(1, rounds + 1):
        batch_of_round, seen, fresh = play(games, weights, seen, fresh, generator)
        gradients = vmap(grad(loss), in_dims=(None, 0))(weights, batch_of_round)
        rows = torch.cat([g.flatten(1) for g in gradients.values()], 1).double()
        if not rows.isfinite().all():
            return None
        mean, sizes = rows.mean(0), np.full(actors, float(HORIZON))
        found = estimate(rows.square().sum(1).numpy(), sizes, float(mean.square().sum()))
        traces.append(found.trace)
        grad_sqs.append(found.grad_sq)
        for name, weight in weights.items():
            weight.grad = gradients[name].mean(0)
        optimizer.step()
        if round_ % every == 0:
            evaluated.append(round_)
            losses.append(missed(weights, seed + round_))
            if max(losses[-3:]) < 0.8 * GOALS[-1]:
                break
    return Curve(*(np.array(values, float) for values in (evaluated, losses, traces, grad_sqs)))


def most_rounds(batch: int) -> int:
    """After so many a run is given up."""
    return int(400 * (1 + 1500 / batch))


def games_of(actors: int) -> VectorEnv:
    """So many games, stepped together."""
    return gymnasium.make_vec("CartPole-v1", num_envs=actors, vectorization_mode="vector_entry_point")


def draw(generator: torch.Generator) -> Weights:
    """One hidden layer; two logits and a value from it."""
    shapes = {"inner": (4, WIDTH), "inner_bias": (WIDTH,), "outer": (WIDTH, 3), "outer_bias": (3,)}
    scales = {"inner": 0.5, "outer": 0.1 / math.sqrt(WIDTH)}
    return {name: scales.get(name, 0.0) * torch.randn(s, generator=generator) for name, s in shapes.items()}


def forward(weights: Weights, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities (..., 2) of the actions, and values (...)."""
    hidden = torch.tanh(seen @ weights["inner"] + weights["inner_bias"])
    out = hidden @ weights["outer"] + weights["outer_bias"]
    return out[..., :2].log_softmax(-1), out[..., 2]


def play(
    games: VectorEnv, weights: Weights, seen: np.ndarray, fresh: np.ndarray, generator: torch.Generator
) -> tuple[dict[str, Tensor], np.ndarray, np.ndarray]:
    """HORIZON steps of every actor: what the loss needs, actors first; the observations to go on from."""
    record: dict[str, list[Tensor]] = {
        name: [] for name in ("seen", "action", "real", "reward", "ended", "cut", "after")
    }
    for _ in range(HORIZON):
        now = torch.from_numpy(seen).float()
        action = torch.multinomial(forward(weights, now)[0].exp(), 1, generator=generator).squeeze(1)
        seen, *outcome, _ = games.step(action.numpy())
        step = (now, action, torch.from_numpy(~fresh), *map(torch.from_numpy, outcome), torch.from_numpy(seen).float())
        for values, value in zip(record.values(), step, strict=True):
            values.append(value)
        fresh = outcome[1] | outcome[2]
    later = forward(weights, torch.stack(record["after"]))[1]
    target, targets = later[-1], []
    for t in reversed(range(HORIZON)):
        target = torch.where(record["cut"][t], later[t], target)  # cut short by the clock: the value stands in
        target = record["reward"][t].float() + DISCOUNT * torch.where(record["ended"][t], 0.0, target)
        targets.append(target)
    kept = {name: torch.stack(record[name], 1) for name in ("seen", "action", "real")}
    return kept | {"target": torch.stack(targets[::-1], 1)}, seen, fresh


def loss(weights: Weights, own: dict[str, Tensor]) -> Tensor:
    """Of one actor: policy gradient, value and entropy, over its real steps."""
    logs, values = forward(weights, own["seen"])
    taken = logs.gather(-1, own["action"].unsqueeze(-1)).squeeze(-1)
    advantage = (own["target"] - values).detach()
    entropy = -(logs.exp() * logs).sum(-1)
    each = -advantage * taken + VALUE_WEIGHT * (own["target"] - values) ** 2 - ENTROPY_WEIGHT * entropy
    return (each * own["real"]).sum() / HORIZON


def missed(weights: Weights, seed: int) -> float:
    """Share of the longest episode that the policy misses, over EVALUATION_ACTORS episodes."""
    games, generator = games_of(EVALUATION_ACTORS), torch.Generator().manual_seed(seed)
    seen, lengths, alive = (
        games.reset(seed=10_000 + seed)[0],
        np.zeros(EVALUATION_ACTORS),
        np.ones(EVALUATION_ACTORS, bool),
    )
    for _ in range(LONGEST):
        logs, _ = forward(weights, torch.from_numpy(seen).float())
        seen, _, ended, cut, _ = games.step(torch.multinomial(logs.exp(), 1, generator=generator).squeeze(1).numpy())
        lengths += alive
        alive &= ~(ended | cut)
        if not alive.any():
            break
    return max(1 - float(lengths.mean()) / LONGEST, 0.001)
