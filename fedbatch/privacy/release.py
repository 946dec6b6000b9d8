"""The server's half of a release: noise where it is the server's, division by a constant, and what follows from it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor

from fedbatch.batch.noise_scale import NoiseScale
from fedbatch.controllers.phase import Phase
from fedbatch.core.errors import RunFailedError
from fedbatch.core.random import Ints
from fedbatch.privacy import noise_scale
from fedbatch.privacy.mechanism import Mechanism
from fedbatch.privacy.noise_history import UNCORRELATED, NoiseHistory
from fedbatch.privacy.noise_scale import ReleaseNoise
from fedbatch.privacy.plan import PrivacyPlan
from fedbatch.privacy.randomness import Floats, fingerprint
from fedbatch.wire.held_out import SlopePlan

PURPOSES = {"slope": "temperature", "correct": "accuracy"}
"""What a statistic of held-out examples is asked for, by which its noise is keyed."""


@dataclass(frozen=True)
class NoisedMean:
    """Values of one round that may be seen by those the mechanism protects against.

    Attributes:
        mean: (d,) noised mean update.
        batch: expected number of units behind it, the constant of the division.
        estimate: noise scale of clipped contributions, None where squared lengths are not released.
        noise: what was added to the sums.
        next_clip_norm: clip norm of the next round.
        history: of the noise, for the next round; not to be seen by them.
    """

    mean: Tensor
    batch: float
    estimate: NoiseScale | None
    noise: ReleaseNoise
    next_clip_norm: float
    history: NoiseHistory = UNCORRELATED

    @property
    def snr(self) -> float:
        """Estimated length of the mean clipped contribution over that of the noise on it; NaN where not measured."""
        if self.estimate is None:
            return float("nan")
        if not self.noise.energy:
            return float("inf")
        return float(max(self.estimate.grad_sq, 0.0) ** 0.5 * self.batch / self.noise.energy**0.5)


def release(
    plan: PrivacyPlan,
    phase: Phase,
    clip_norm: float,
    sums: tuple[Tensor, Floats],
    answered: Ints,
    key: tuple[int, str, int],
    is_gradient: bool,
    history: NoiseHistory = UNCORRELATED,
) -> NoisedMean:
    """Make the release of a round.

    Args:
        plan: the run's mechanism.
        phase: the round's phase.
        clip_norm: C of this round.
        sums: float64 sums (d,) of contributions and (e,) of extra coordinates, over all nodes; integers if those are
            released.
        answered: ids of the clients behind them.
        key: round, parameters and attempt, for the server's noise; who is summed joins it here.
        is_gradient: whether contributions are gradients at the global parameters.
        history: noise of earlier rounds, where this round's is correlated with it.

    Raises:
        RunFailedError: too few contributions for the sum to carry its noise.
    """
    mechanism, terms, round_ = plan.mechanism, plan.terms, key[0]
    check_noise_is_whole(mechanism, len(answered))
    grid = plan.grid(phase, clip_norm)
    update, extras = grid.decoded(sums) if grid else sums
    size = update.numel()
    noise = plan.release_noise(phase, clip_norm, mechanism.noise_shares(len(answered)), size)
    if mechanism.server_adds_noise:
        name = ("server", *key, *answered.tolist())
        (update, extras), history = add_correlated(plan, phase, (update, extras), noise, name, history)
        noise = replace(noise, update=noise.update * history.variance(round_) ** 0.5)
    pure_noise = mechanism.server_adds_noise and not len(answered)  # divided by the typical batch, for it is a step too
    batch = terms.batch(phase, None if pure_noise else answered)
    by_examples = mechanism.clips_examples and not is_gradient  # local steps come weighted by their client's size
    divisor = float(terms.sizes[answered].sum()) if by_examples else batch
    mean = update / divisor if divisor else update
    estimate = None
    if plan.has_squares(phase) and batch:
        squared = float(mean.dot(mean))
        estimate = noise_scale.estimate(squared, float(extras[0]), batch, terms.sample_rate(phase), noise)
    if plan.follows_quantile and batch:
        clip_norm = mechanism.next_clip_norm(clip_norm, float(extras[-1]), batch)
    return NoisedMean(mean, batch, estimate, noise, clip_norm, history)


def check_noise_is_whole(mechanism: Mechanism, contributions: int) -> None:
    """Refuse a sum of so few shares that they do not make up the noise.

    Raises:
        RunFailedError: it is.
    """
    if contributions < mechanism.fewest_clients:
        raise RunFailedError(
            f"{contributions} contributions are fewer than privacy.min_clients={mechanism.fewest_clients}, so "
            "their sum has too little noise and is not released"
        )


def add_noise(
    plan: PrivacyPlan, phase: Phase, sums: tuple[Tensor, Floats], noise: ReleaseNoise, key: tuple[object, ...]
) -> tuple[Tensor, Floats]:
    """The sums with keyed noise, one draw for all coordinates; the update is changed in place."""
    return add_correlated(plan, phase, sums, noise, key, UNCORRELATED)[0]


def add_shares(
    plan: PrivacyPlan,
    phase: Phase,
    clip_norm: float,
    sums: tuple[Tensor, Floats],
    keys: Sequence[tuple[object, ...]],
) -> tuple[Tensor, Floats]:
    """The sums over a node's clients with the noise of each, named by its key; as integers where those are released.

    A node rounds the sum over its clients once, where each client of a deployment rounds its own.
    """
    share, grid = plan.mechanism.noise_shares(1), plan.grid(phase, clip_norm)
    if grid is None:
        noise = plan.release_noise(phase, clip_norm, share, sums[0].numel())
        for key in keys:
            sums = add_noise(plan, phase, sums, noise, key)
        return sums
    count = sums[0].numel() + len(sums[1])
    update, extras = grid.rounded(sums, plan.randomness.uniform(count, "rounding", *chain(*keys)))
    for key in keys:
        draws = plan.randomness.skellam(count, grid.deviation**2 * share, "noise", *key)
        update.add_(torch.from_numpy(draws[: len(update)]).to(update.device))
        extras = extras + draws[len(update) :]
    return grid.wrapped((update, extras))


def add_correlated(
    plan: PrivacyPlan,
    phase: Phase,
    sums: tuple[Tensor, Floats],
    noise: ReleaseNoise,
    key: tuple[object, ...],
    history: NoiseHistory,
) -> tuple[tuple[Tensor, Floats], NoiseHistory]:
    """As `add_noise`, with the update's noise correlated with that of earlier rounds; extra coordinates' never is."""
    update, extras = sums
    if not noise.update:
        return sums, history
    size = update.numel()
    draws = plan.randomness.normal(size + len(extras), "noise", *key, device=update.device)
    noised = extras + draws[size:].cpu().numpy() * plan.extra_deviations(phase, noise)
    unit, history = history.next(draws[:size].to(update, non_blocking=True))
    return (update.add_(unit, alpha=noise.update), noised), history


def slope_key(plan: SlopePlan) -> tuple[int, str, int]:
    """What names a question about held-out examples for its noise: the round, what is asked, and the attempt."""
    name = slope_name(plan.params, plan.inverse) if plan.statistic == "slope" else accuracy_name(plan.params)
    return plan.round, name, plan.attempt


def accuracy_name(params: Tensor) -> str:
    """What names the release of an accuracy in the ledger, beside its round."""
    return f"{fingerprint(params)}/correct"


def slope_name(params: Tensor, inverse: float) -> str:
    """What names a release of slopes in the ledger, beside its round: parameters with temperature."""
    return f"{fingerprint(params)}/{inverse!r}"
