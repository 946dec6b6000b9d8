"""What every mechanism is: what it is told, what it declares, and what one round of it costs.

Every mechanism releases a sum of contributions, each clipped to length C, with Gaussian noise, and divides it by a
constant. Extra coordinates travel in the same release: the sum of squared lengths, from which the noise scale is
estimated, and for an adaptive clip norm the number of units within it. Coordinates with noise multipliers
``sigma_i`` cost together what one of ``(sum sigma_i^-2)^-1/2`` costs, so the configured noise multiplier is that of
the whole release, and each coordinate gets a little more.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from fedbatch.core.errors import ConfigError
from fedbatch.privacy.lattice import Lattice

SQUARES_NOISE = 10.0
"""Noise of the sum of squared lengths, in units of the update's: it costs the update 0.5 % more noise."""


@dataclass(frozen=True)
class Deployment:
    """A larger deployment that a run simulates with fewer clients.

    Attributes:
        population: clients that there would be.
        cohort: of these in a round of the first phase, expected.
    """

    population: int
    cohort: int


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """What all mechanisms are told.

    Attributes:
        clip_norm: C > 0, largest length of one unit's contribution; ``inf`` only without noise.
        clipping: "flat", or "per_layer" with ``C / sqrt(layers)`` for each.
        noise_multiplier: standard deviation of the noise on the sum, in clip norms, >= 0; None to calibrate it to
            ``target_epsilon``. With ``noise_schedule=proportional`` it is that of the first phase.
        noise_schedule: "constant" noise multiplier, or "proportional" to the phase's batch, which keeps the noise of
            the mean constant.
        target_epsilon: budget; None to spend what the noise multiplier costs.
        delta: None for 1e-5, or a tenth of one over the number of units if that is less.
        accountant: "pld", "rdp", or "auto": the smaller of both, or an RDP filter where phases depend on what was
            released.
        measure_noise_scale: release the sum of squared lengths too.
        secret_file: file of the key for sampling and noise; None derives it from the seed, for reproducible studies.
        accuracy_noise: noise multiplier of each accuracy on what clients hold out, over that of the first phase; in
            rounds that are evaluated. None releases none.
        clip_quantile: share of units that the clip norm should let through, in (0, 1), which it then follows from
            round to round (Andrew et al. 2021); None keeps it fixed.
        clip_rate: learning rate of the clip norm's logarithm, > 0.
        count_noise: standard deviation of the noise on the number of units within the clip norm, in units; None for a
            twentieth of the expected units of a release, or two noise multipliers if that is more.
        generator: "philox", or "chacha20", cryptographic and slower on a CPU; a GPU draws long vectors by it always.
    """

    clip_norm: float
    clipping: str
    noise_multiplier: float | None
    noise_schedule: str
    target_epsilon: float | None
    delta: float | None
    accountant: str
    measure_noise_scale: bool
    secret_file: str | None
    generator: str
    accuracy_noise: float | None = None
    clip_quantile: float | None = None
    clip_rate: float = 0.2
    count_noise: float | None = None

    against: ClassVar[str]
    """From whom it protects, in words."""
    unit: ClassVar[str]
    """What is protected, in a word: "example" or "client"."""
    clips_examples: ClassVar[bool]
    """Whether each example's gradient is clipped; else a client's whole update."""
    server_adds_noise: ClassVar[bool] = False
    shares_noise: ClassVar[bool] = False
    """Whether only the sum over clients has the whole noise."""
    releases_sums: ClassVar[bool] = True
    """Whether what is protected hides in the sum over clients; else each client's own reply is a release."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("clipping", ("flat", "per_layer")),
            ("noise_schedule", ("constant", "proportional")),
            ("accountant", ("auto", "pld", "rdp")),
        ):
            if getattr(self, name) not in choices:
                raise ConfigError(f"privacy.{name} must be one of {', '.join(choices)} (got {getattr(self, name)!r})")
        if not self.clip_norm > 0:
            raise ConfigError(f"privacy.clip_norm must be > 0 (got {self.clip_norm})")
        if self.noise_multiplier is None and self.target_epsilon is None:
            raise ConfigError("privacy: set noise_multiplier or target_epsilon")
        if self.noise_multiplier is not None and not 0 <= self.noise_multiplier < math.inf:
            raise ConfigError(f"privacy.noise_multiplier must be >= 0 (got {self.noise_multiplier})")
        if math.isinf(self.clip_norm) and self.noise_multiplier != 0:
            raise ConfigError("privacy.clip_norm=inf bounds nothing; set a finite one, or noise_multiplier=0")
        if self.target_epsilon is not None and self.target_epsilon <= 0:
            raise ConfigError(f"privacy.target_epsilon must be > 0 (got {self.target_epsilon})")
        if self.follows_quantile and self.clipping != "flat":
            raise ConfigError("privacy.clip_quantile is of the length of the whole update; set privacy.clipping=flat")
        if self.clip_quantile is not None and (not 0 < self.clip_quantile < 1 or self.clip_rate <= 0):
            raise ConfigError("privacy: clip_quantile must be in (0, 1) and clip_rate > 0")

    @property
    def known_shares(self) -> int | None:
        """Shares of the noise that may be known to others; None where noise is not shared."""
        return None

    @property
    def masks(self) -> bool:
        """Whether nodes mask their sums, so that the server opens the sum of all alone, and never that of others."""
        return False

    @property
    def follows_quantile(self) -> bool:
        """Whether the clip norm follows a quantile; the last extra coordinate is then the count within it."""
        return self.clip_quantile is not None

    @property
    def lattice(self) -> Lattice | None:
        """What integers stand for in a release of integers with Skellam noise; None for numbers with Gaussian noise."""
        return None

    def whole_noise(self, accounted: float, size: int) -> float:
        """Noise multiplier of a release with an update of ``size`` numbers that costs ``accounted``, a Gaussian's."""
        return self.lattice.noise(accounted, size) if self.lattice else accounted

    def noise_of_count(self, whole: float, units: float) -> float:
        """Standard deviation of the noise on the count within the clip norm, in units.

        Args:
            whole: noise multiplier of the whole release.
            units: expected in a release.
        """
        return max(units / 20, 2 * whole) if self.count_noise is None else self.count_noise

    def update_noise(self, accounted: float, has_squares: bool, units: float, size: int) -> float:
        """Noise multiplier of the update of ``size`` numbers within a release of ``units`` expected units.

        The sum of squares and the count, of sensitivity 1/2 for it is centred, have noise and their part of the cost.
        """
        whole = self.whole_noise(accounted, size)
        if self.follows_quantile and whole > 0:
            count = self.noise_of_count(whole, units)
            left = whole**-2 - (2 * count) ** -2
            if left <= 0:
                raise ConfigError(
                    f"privacy.count_noise ({count:.3g} {self.unit}s) must be above half the noise multiplier "
                    f"({whole:.3g}), or the count alone spends the budget; raise it or the batch, or set it to null"
                )
            whole = left**-0.5
        return whole * math.sqrt(1 + SQUARES_NOISE**-2) if has_squares else whole

    def next_clip_norm(self, clip_norm: float, centred_count: float, units: float) -> float:
        """The clip norm of the next round.

        Args:
            clip_norm: C of this round.
            centred_count: noised sum of +1/2 for each unit within C and -1/2 for each beyond it; centred, because
                that halves what one unit can change.
            units: expected number in the round; never the realised one, which is not released.
        """
        if self.clip_quantile is None:
            return clip_norm
        share_within = centred_count / units + 0.5
        return clip_norm * math.exp(-self.clip_rate * (share_within - self.clip_quantile))

    @property
    def fewest_clients(self) -> int:
        """Contributions without which a round is not released."""
        return 0

    @property
    def deployment(self) -> Deployment | None:
        """The deployment that is accounted in the place of the run itself; None for the run itself."""
        return None

    def noise_shares(self, clients: int) -> float:
        """Variance of the noise on the sum of ``clients`` contributions, in units of one noise multiplier's."""
        return 1.0
