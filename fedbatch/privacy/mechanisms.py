"""The mechanisms: who is protected, who samples, who adds the noise, and what one round of it costs.

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


@dataclass(frozen=True, kw_only=True)
class ExampleLocal(Mechanism):
    """Each client clips every example's gradient and adds the whole noise to its own sum (Abadi et al. 2016).

    Protects an example from everyone but its own client. Clients' data are disjoint, so the client that took part most
    often has the largest epsilon; which clients take part is no secret and amplifies nothing.
    """

    unit = "example"
    clips_examples = True
    releases_sums = False

    def noise_shares(self, clients: int) -> float:
        """Each client brings noise of its own."""
        return float(clients)


@dataclass(frozen=True, kw_only=True)
class ExampleDistributed(ExampleLocal):
    """As example level, local, but each client adds a share, and only the sum of all has the whole noise.

    Protects an example from those who see sums only: it needs secure aggregation, which a simulation can only assume.

    Attributes:
        min_clients: contributions without which a round is not released; the shares are sized for it.
        colluders: clients that might tell the server their shares, < ``min_clients``.
        secure_aggregation: "simulated" to study it as if the server saw sums only.
        quantum: length of a step, in clip norms, if sums and noise are integers as secure aggregation adds them, in
            (0, 1]; None for floating-point numbers with Gaussian noise. See `fedbatch.privacy.lattice`.
        bits: of the modulus of these integers, 2 .. 48.
    """

    min_clients: int
    colluders: int
    secure_aggregation: str
    quantum: float | None = None
    bits: int = 32

    releases_sums = True
    shares_noise = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.secure_aggregation != "simulated":
            raise ConfigError(
                "privacy.secure_aggregation: shares of noise protect nobody from a server that sees each of them, and "
                "there is no secure aggregation here; set it to simulated to study it, or take privacy=example_local"
            )
        if not 0 <= self.colluders < self.min_clients:
            raise ConfigError(
                f"privacy: need 0 <= colluders < min_clients (got {self.colluders} and {self.min_clients})"
            )
        if self.quantum is None:
            return
        if not 0 < self.quantum <= 1:
            raise ConfigError(f"privacy.quantum must be in (0, 1], or null for no integers (got {self.quantum})")
        if not (isinstance(self.bits, int) and 2 <= self.bits <= 48):
            raise ConfigError(f"privacy.bits must be a whole number in [2, 48] (got {self.bits})")
        if self.accountant == "pld":
            raise ConfigError(
                "privacy.accountant=pld: the loss distribution of integer noise is not proven; set it to auto or rdp, "
                "or privacy.quantum=null"
            )

    @property
    def lattice(self) -> Lattice | None:
        """That of ``quantum`` and ``bits``."""
        return None if self.quantum is None else Lattice(self.quantum, self.bits)

    @property
    def fewest_clients(self) -> int:
        """``min_clients``."""
        return self.min_clients

    def noise_shares(self, clients: int) -> float:
        """Each brings a share, such that those of ``min_clients - colluders`` honest clients add up to the whole."""
        return clients / (self.min_clients - self.colluders)


def check_bands(bands: int | str) -> None:
    """Refuse what is no number of bands.

    Raises:
        ConfigError: it is not.
    """
    if bands != "auto" and not (isinstance(bands, int) and bands >= 1):
        raise ConfigError(f"privacy.bands must be a whole number from 1 (independent noise), or auto (got {bands!r})")


@dataclass(frozen=True, kw_only=True)
class ExampleCentral(Mechanism):
    """Each client clips every example's gradient, and a trusted server adds the noise to the sum over all clients.

    Protects an example from those who see models. Data are disjoint and who takes part is no secret, as at
    `ExampleLocal`, with the noise of one client in place of that of each.

    Attributes:
        bands: over how many rounds noise is correlated (see `fedbatch.privacy.banded`), >= 1; 1 for independent noise,
            "auto" for the power of two with the least predicted error.
    """

    bands: int | str = 1

    unit = "example"
    clips_examples = True
    server_adds_noise = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bands(self.bands)


@dataclass(frozen=True, kw_only=True)
class ClientCentral(Mechanism):
    """Each client's whole update is clipped, and a trusted server samples clients and adds noise (McMahan et al. 2018).

    Protects all that one client holds, from those who see models.

    Attributes:
        deployment_population: clients of a larger deployment that the run simulates; None for none. Epsilon is then
            that of the deployment, and the noise is as small a part of the mean as it would be there.
        deployment_cohort: clients in a round of that deployment's first phase.
        bands: as in `ExampleCentral`.
    """

    deployment_population: int | None = None
    deployment_cohort: int | None = None
    bands: int | str = 1

    unit = "client"
    clips_examples = False
    server_adds_noise = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bands(self.bands)
        if (self.deployment_population is None) != (self.deployment_cohort is None):
            raise ConfigError("privacy: set deployment_population and deployment_cohort together, or neither")

    @property
    def deployment(self) -> Deployment | None:
        """The deployment that is set."""
        if self.deployment_population is None or self.deployment_cohort is None:
            return None
        return Deployment(self.deployment_population, self.deployment_cohort)
