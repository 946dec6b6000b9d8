"""The gain curve: how much progress a step makes on each batch, along the step that the server's optimizer takes.

Let u map a gradient to the optimizer's step and g_B be the mean gradient of B examples, with expectation G. At its best
length, a step along u(g_B) lowers a loss of curvature h by e(B) / 2h, where

    e(B) = (E<G, u(g_B)>)^2 / E|u(g_B)|^2

For plain SGD, u(g) = g, this is |G|^2 / (1 + N/B) with the noise scale N. For other optimizers it is our design; both
expectations are measured without bias from the means of groups of clients, see `fedbatch.aggregation.groups`. Most of
the noise of <G, u(g)> is that of <G, g>, whose expectation |G|^2 is known better from all rounds, and is replaced by
it: a control variate. Curvature is taken to be the same in all directions, and momentum is left out: with momentum m, a
batch works like B / (1 - m).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Numbers = tuple[float, ...]

FEWEST = 0.8
"""Least weight of the past in the averages, at which about nine measured rounds count."""
LEAST = 3
"""Measured rounds before there is a standard error."""
DRAWS = 200
HALVES, POWERS = np.exp2(np.arange(-6, 16, 1 / 32)), np.arange(0.5, 2.01, 0.125)
"""Where the fit looks for B_half, in groups, and for the power where there are points enough for one."""
JUMP = 1.5
"""Groups larger or smaller by this factor are another curve."""


@dataclass(frozen=True)
class GroupSums:
    """What the groups of one round say; see `fedbatch.aggregation.groups`.

    Attributes:
        size: batch of one group, in the unit of the noise scale.
        along: E<G, u(g)> - slope * |G|^2 for g the mean of 1, 2, 4 ... groups, up to half of them; without bias.
        squares: E|u(g)|^2 for as many.
        slopes: <g, u(g)> / |g|^2 for as many.
        norms: noise and signal in the norms l2, l1 and nuclear: three pairs.
        layers: tr(Sigma) and |G|^2 of each layer: pairs of estimates without bias.
    """

    size: float
    along: Numbers
    squares: Numbers
    slopes: Numbers
    norms: Numbers
    layers: Numbers = ()


@dataclass(frozen=True)
class RunningGain:
    """Averages over measured rounds, numerators and denominators apart; a value, `update` returns the next one.

    Attributes:
        size: average batch of one group; 0 before anything was measured.
        count: measured rounds.
        means: averages of ``along``, ``squares`` and ``slopes``.
        products: averages of the products of any two of them, row by row.
        norms: averages of ``norms``.
        layers: averages of ``layers``.
        weight: sum of the weights so far.
        sq_weight: sum of their squares.
        grad_sq: |G|^2 averaged over all rounds up to the last measured one, without bias.
        grad_sq_se: its standard error.
    """

    size: float = 0.0
    count: int = 0
    means: Numbers = ()
    products: Numbers = ()
    norms: Numbers = ()
    layers: Numbers = ()
    weight: float = 0.0
    sq_weight: float = 0.0
    grad_sq: float = 0.0
    grad_sq_se: float = 0.0

    def update(self, seen: GroupSums, decay: float, grad_sq: float, grad_sq_se: float) -> "RunningGain":
        """After one more measured round; from the start again where groups have become larger or smaller.

        A round with numbers that are not finite, as before training diverges, is passed over.

        Args:
            seen: what the groups of the round say.
            decay: weight that is left to the past, at least `FEWEST`.
            grad_sq: |G|^2 averaged over all rounds, measured or not, without bias.
            grad_sq_se: its standard error.
        """
        means = (*seen.along, *seen.squares, *seen.slopes)
        products = tuple(a * b for a in means for b in means)
        if not np.isfinite([*products, *seen.norms, *seen.layers]).all():
            return self
        decay = max(decay, FEWEST)
        before = self if self.count and 1 / JUMP < seen.size / self.size < JUMP else RunningGain()
        weight = decay * before.weight + 1

        def mixed(past: Numbers, now: Numbers) -> Numbers:
            return tuple(p + (v - p) / weight for p, v in zip(past or now, now, strict=True))

        return RunningGain(
            size=mixed((before.size,) if before.count else (), (seen.size,))[0],
            count=before.count + 1,
            means=mixed(before.means, means),
            products=mixed(before.products, products),
            norms=mixed(before.norms, seen.norms),
            layers=mixed(before.layers, seen.layers),
            weight=weight,
            sq_weight=decay**2 * before.sq_weight + 1,
            grad_sq=grad_sq,
            grad_sq_se=grad_sq_se,
        )

    def covariance(self) -> Floats:
        """Of ``means`` (3L, 3L), from the spread of the rounds; NaN before `LEAST` rounds."""
        mean = np.array(self.means)
        if self.count < LEAST:
            return np.full((len(mean), len(mean)), np.nan)
        share = self.sq_weight / self.weight**2
        spread = np.reshape(self.products, (len(mean), len(mean))) - np.outer(mean, mean)
        return spread * share / (1 - share)


@dataclass(frozen=True)
class Gain:
    """The fitted curve ``e = e_inf / (1 + (B_half / B)^power)``.

    Attributes:
        batches: (L,) at which it was measured.
        gains: (L,) e there, measured; e_inf is 1.
        half: B_half, the batch at which e is half its limit; 0 or infinite where it is beyond what can be seen.
        half_low, half_high: ends of its 90 % interval, NaN where unknown.
        power: how steep the curve is: 1 by the formula for SGD; fitted where there are four batches or more.
        doubling: e(2B) / e(B) at the whole batch B of all groups, at least 1.
        doubling_se: its standard error, NaN where unknown.
    """

    batches: Floats
    gains: Floats
    half: float
    half_low: float
    half_high: float
    power: float
    doubling: float
    doubling_se: float

    def share(self, batch: float) -> float:
        """E at ``batch`` > 0 as a share of e_inf, in [0, 1]."""
        return float(1 / (1 + (self.half / batch) ** self.power)) if math.isfinite(self.half) else 0.0


@lru_cache(maxsize=8)
def fit(running: RunningGain) -> Gain | None:
    """The curve through the averages; None before any. Rounds that measure nothing ask for the same one again."""
    if not running.count:
        return None
    levels = len(running.means) // 3
    known, mean = running.count >= LEAST, np.array([*running.means, running.grad_sq])
    draws = mean[None]
    if known:
        rng, covariance = np.random.default_rng(0), np.zeros((len(mean), len(mean)))
        covariance[:-1, :-1], covariance[-1, -1] = running.covariance(), running.grad_sq_se**2
        normal = rng.multivariate_normal(mean, covariance, size=DRAWS, check_valid="ignore", method="eigh")
        draws = np.concatenate([draws, normal])
    rest, squares, slopes = (draws[:, i * levels : (i + 1) * levels] for i in range(3))
    with np.errstate(divide="ignore", invalid="ignore"):
        roots = (rest + slopes * draws[:, -1:]) / np.sqrt(np.maximum(squares, 0.0))
    roots = np.nan_to_num(roots, posinf=0.0, neginf=0.0)
    spread = roots[1:].std(axis=0) if known else np.ones(levels)
    least = 1e-9 * np.abs(roots[0]).max() or 1.0  # of a spread; 1 where there is no gradient at all
    half, power, scale = _best(roots, 1 / np.maximum(spread, least) ** 2)
    groups = 2.0**levels
    with np.errstate(over="ignore", invalid="ignore"):
        doubling = (1 + (half / groups) ** power) / (1 + (half / (2 * groups)) ** power)
    doubling = np.where(np.isinf(half), 2.0**power, doubling)
    low, high = np.quantile(half[1:], [0.05, 0.95], method="nearest") * running.size if known else (np.nan, np.nan)
    return Gain(
        batches=np.asarray(running.size * 2.0 ** np.arange(levels), dtype=np.float64),
        gains=np.sign(roots[0]) * (roots[0] / scale[0]) ** 2 if scale[0] > 0 else np.full(levels, np.nan),
        half=float(half[0] * running.size),
        half_low=float(low),
        half_high=float(high),
        power=float(power[0]),
        doubling=float(doubling[0]),
        doubling_se=float(doubling[1:].std()) if known else math.nan,
    )


def _best(roots: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """B_half in groups, power and sqrt(e_inf) of the weighted least squares through each row of sqrt(e) (R, L)."""
    levels = roots.shape[1]
    powers = POWERS if levels >= 4 else np.ones(1)
    half, power = (grid.ravel() for grid in np.meshgrid(HALVES, powers, indexing="ij"))
    with np.errstate(over="ignore"):
        shape = (1 + (half[:, None] / 2.0 ** np.arange(levels)) ** power[:, None]) ** -0.5
    along, sizes = roots @ (weights * shape).T, (shape**2) @ weights
    best = np.argmax(np.maximum(along, 0.0) ** 2 / sizes, axis=1)
    found, scale = half[best], along[np.arange(len(roots)), best] / sizes[best]
    found = np.where((scale <= 0) | (found >= HALVES[-1]), np.inf, np.where(found <= HALVES[0], 0.0, found))
    return found, power[best], scale


def scales(running: RunningGain) -> dict[str, float]:
    """Noise scales in the norms l2, l1 and nuclear, in the unit of the noise scale; NaN before any.

    That of l2 is the noise scale, estimated without bias. The others put the mean in the place of the true gradient
    (arXiv 2602.03001): where noise is large they are too small, and l1 never says more than about (pi / 2) B.
    """
    names = ("b_l2", "b_l1", "b_nuclear")
    pairs = running.norms or (math.nan,) * 6
    return {name: ratio(pairs[2 * i], pairs[2 * i + 1]) for i, name in enumerate(names)}


def ratio(noise: float, signal: float) -> float:
    """Noise over signal; infinite where no signal was seen through the noise."""
    return noise / signal if signal > 0 else math.nan if math.isnan(signal) else math.inf
