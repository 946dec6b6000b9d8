"""CartPole for many learners and episodes at once, a policy of one hidden layer, and its gradient by episode."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbatch.core.random import generator

Floats = npt.NDArray[np.float64]
GRAVITY, CART, POLE, HALF, FORCE, SECONDS = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
"""Metres, kilograms, newtons; half the pole's length; the time of a step."""
FAR, TILT, START = 2.4, np.deg2rad(12), 0.05
LONGEST, HIDDEN = 200, 8
"""Steps of an episode at most; units of the policy."""
SHAPES = ((HIDDEN, 4), (HIDDEN,), (HIDDEN,), (1,))
PARAMETERS = sum(int(np.prod(shape)) for shape in SHAPES)


def accelerations(state: Floats, force: Floats) -> tuple[Floats, Floats]:
    """Of cart (m/s^2) and pole (rad/s^2), without friction.

    Args:
        state: (..., 4) position, velocity, angle from upright, angular velocity.
        force: (...) on the cart, newtons.

    Source: Barto, Sutton and Anderson 1983, "Neuronlike adaptive elements", appendix.
    """
    angle, turning = state[..., 2], state[..., 3]
    sine, cosine, mass = np.sin(angle), np.cos(angle), CART + POLE
    push = (force + POLE * HALF * turning**2 * sine) / mass
    spin = (GRAVITY * sine - cosine * push) / (HALF * (4 / 3 - POLE * cosine**2 / mass))
    return push - POLE * HALF * spin * cosine / mass, spin


def moved(state: Floats, right: npt.NDArray[np.bool_]) -> Floats:
    """The states (..., 4) after a step of Euler's with the force to the right or to the left (...)."""
    cart, pole = accelerations(state, np.where(right, FORCE, -FORCE))
    rates = np.stack([state[..., 1], cart, state[..., 3], pole], axis=-1)
    return np.asarray(state + SECONDS * rates)


def fallen(state: Floats) -> npt.NDArray[np.bool_]:
    """Whether an episode (...) is over."""
    return (np.abs(state[..., 0]) > FAR) | (np.abs(state[..., 2]) > TILT)


@dataclass(frozen=True)
class Episodes:
    """What L learners saw in B episodes each.

    Attributes:
        states: (T, L, B, 4) before each action; T at most `LONGEST`.
        surprise: (T, L, B) action (0 or 1) less its probability; zero once an episode is over.
        alive: (T, L, B) whether the episode went on at this step.
    """

    states: Floats
    surprise: Floats
    alive: npt.NDArray[np.bool_]

    @property
    def to_go(self) -> Floats:
        """Steps still to come (T, L, B): the return from there, undiscounted."""
        return np.cumsum(self.alive[::-1], axis=0)[::-1].astype(np.float64)


def split(parameters: Floats) -> tuple[Floats, ...]:
    """The tensors of policies (L, P), each with the learner first."""
    ends = np.cumsum([int(np.prod(shape)) for shape in SHAPES])[:-1]
    parts = np.split(parameters, ends, axis=1)
    return tuple(part.reshape(len(parameters), *shape) for part, shape in zip(parts, SHAPES, strict=True))


def hidden(weights: tuple[Floats, ...], states: Floats) -> Floats:
    """Units (L, B, H) of the policies for states (L, B, 4)."""
    return np.asarray(np.tanh(states @ weights[0].transpose(0, 2, 1) + weights[1][:, None]))


def started(learners: int, seed: int) -> Floats:
    """Parameters (L, P); the last layer is zero, so that both actions are equally likely."""
    drawn = np.zeros((learners, PARAMETERS))
    drawn[:, : HIDDEN * 4] = generator(seed, "policy").normal(size=(learners, HIDDEN * 4)) / 2
    return drawn


def play(parameters: Floats, batch: int, draws: np.random.Generator) -> Episodes:
    """``batch`` episodes of each policy (L, P)."""
    weights, state = split(parameters), draws.uniform(-START, START, (len(parameters), batch, 4))
    alive = np.ones(state.shape[:2], bool)
    states, surprises, lives = list[Floats](), list[Floats](), list[npt.NDArray[np.bool_]]()
    while alive.any() and len(states) < LONGEST:
        logit = (hidden(weights, state) @ weights[2][..., None])[..., 0] + weights[3]
        likely = 1 / (1 + np.exp(-logit))
        right = draws.random(likely.shape) < likely
        states.append(state)
        surprises.append((right - likely) * alive)
        lives.append(alive)
        state = np.where(alive[..., None], moved(state, right), state)
        alive = alive & ~fallen(state)
    return Episodes(np.stack(states), np.stack(surprises), np.stack(lives))


def gradients(parameters: Floats, episodes: Episodes, baseline: Floats) -> Floats:
    """Gradient (L, B, P) of the return of each episode by REINFORCE (Williams 1992).

    Args:
        parameters: (L, P) of the policies that played.
        episodes: of theirs.
        baseline: (LONGEST, L) taken off the return from each step; independent of these episodes.
    """
    weights, steps = split(parameters), len(episodes.states)
    pull = episodes.surprise * (episodes.to_go - baseline[:steps, :, None])
    learners, batch = pull.shape[1:]
    first, bias = np.zeros((learners, batch, HIDDEN, 4)), np.zeros((learners, batch, HIDDEN))
    last = np.zeros((learners, batch, HIDDEN))
    for state, weight in zip(episodes.states, pull, strict=True):
        h = hidden(weights, state)
        last += weight[..., None] * h
        back = weight[..., None] * weights[2][:, None] * (1 - h**2)
        bias += back
        first += back[..., None] * state[..., None, :]
    flat = first.reshape(learners, batch, -1)
    return np.concatenate([flat, bias, last, pull.sum(axis=0)[..., None]], axis=-1)


def followed(baseline: Floats, episodes: Episodes, half_life: float) -> Floats:
    """The baseline (LONGEST, L) moved towards the mean steps to go of episodes that were alive at each step.

    Args:
        baseline: before.
        episodes: of the same learners.
        half_life: in episodes, so that it averages over as many of them whatever the batch.
    """
    count, steps = episodes.alive.sum(axis=2), len(episodes.states)
    seen = (episodes.to_go * episodes.alive).sum(axis=2) / np.maximum(count, 1)
    keep = 0.5 ** (episodes.alive.shape[2] / half_life)
    after = baseline.copy()
    after[:steps] = np.where(count > 0, keep * baseline[:steps] + (1 - keep) * seen, baseline[:steps])
    return after
