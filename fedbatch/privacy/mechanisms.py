"""The mechanisms: who is protected, from whom, who samples, and who adds the noise."""

from dataclasses import dataclass

from fedbatch.core.errors import ConfigError
from fedbatch.privacy.lattice import Lattice
from fedbatch.privacy.mechanism import Deployment, Mechanism


@dataclass(frozen=True, kw_only=True)
class ExampleLocal(Mechanism):
    """Each client clips every example's gradient and adds the whole noise to its own sum (Abadi et al. 2016).

    Protects an example from everyone but its own client. Clients' data are disjoint, so the client that took part most
    often has the largest epsilon; which clients take part is no secret and amplifies nothing.
    """

    against = (
        "anyone but the example's own client; the server too, if it is honest but curious: it asks each round once "
        "and as planned, for nodes keep a budget of their own only where node-config sets max_epsilon"
    )
    unit = "example"
    clips_examples = True
    releases_sums = False

    def noise_shares(self, clients: int) -> float:
        """Each client brings noise of its own."""
        return float(clients)


@dataclass(frozen=True, kw_only=True)
class ExampleDistributed(ExampleLocal):
    """As example level, local, but each client adds a share, and only the sum of all has the whole noise.

    Protects an example from those who see sums only: it needs secure aggregation, which is there or is only assumed.

    Attributes:
        min_clients: contributions without which a round is not released; the shares are sized for it.
        colluders: clients that might tell the server their shares, < ``min_clients``.
        secure_aggregation: "masked" for nodes that mask their sums (see `fedbatch.masking`), or "simulated" to study it
            as if the server saw sums only.
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
        if self.secure_aggregation not in ("masked", "simulated"):
            raise ConfigError(
                "privacy.secure_aggregation: shares of noise protect nobody from a server that sees each of them; set "
                "it to masked (nodes mask their sums) or to simulated (a study, as if they did), or take "
                f"privacy=example_local (got {self.secure_aggregation!r})"
            )
        if not 0 <= self.colluders < self.min_clients:
            raise ConfigError(
                f"privacy: need 0 <= colluders < min_clients (got {self.colluders} and {self.min_clients})"
            )
        if self.masks and (self.quantum is None or self.noise_multiplier == 0):
            raise ConfigError(
                "privacy.secure_aggregation=masked: masks hide whole numbers with noise; set privacy.quantum=0.001 "
                "and a noise_multiplier above 0"
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
    def against(self) -> str:  # type: ignore[override]  # of the others it is a constant
        """From whom, which depends on whether there is secure aggregation."""
        if self.masks:
            return (
                f"those who see models, and a server that is honest but curious, with up to {self.colluders} clients "
                "on its side and no more than half of the nodes: it sees masked sums"
            )
        return (
            "those who see sums over clients only; this run simulates secure aggregation, it has none, and its server "
            "is honest but curious"
        )

    @property
    def known_shares(self) -> int:
        """``colluders``."""
        return self.colluders

    @property
    def masks(self) -> bool:
        """As ``secure_aggregation`` says."""
        return self.secure_aggregation == "masked"

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

    against = "those who see the models; the server is trusted with sums over each node's examples, and adds the noise"
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

    against = "those who see the models; the server and its nodes are trusted with each client's update"
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
