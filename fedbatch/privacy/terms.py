"""The terms of a run's releases: how likely each unit takes part, in how large a batch, with how much noise."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbatch.controllers.phase import Phase
from fedbatch.core.random import Ints
from fedbatch.privacy.groups import groups
from fedbatch.privacy.mechanism import Deployment, Mechanism

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SamplingPlan:
    """Constants of the configuration; nothing here depends on data, or on which units were drawn.

    Attributes:
        mechanism: the mechanism.
        sizes: int64 (P,), each client's number of examples; declared, and taken as public.
        first: the first phase.
        bands: b, over how many rounds noise is correlated, and in how many groups units take part; 1 for neither.
        seed: the run's, from which the groups are drawn.
        size: d, coordinates of an update; more of them cost more noise where it is on a lattice.
    """

    mechanism: Mechanism
    sizes: Ints
    first: Phase
    bands: int = 1
    seed: int = 0
    size: int = 0

    @property
    def deployment(self) -> Deployment | None:
        """The larger deployment that is accounted in the place of this run."""
        return self.mechanism.deployment

    @property
    def units(self) -> int:
        """How many units are protected, clients or examples."""
        if self.deployment is not None:
            return self.deployment.population
        return len(self.sizes) if not self.mechanism.clips_examples else int(self.sizes.sum())

    @property
    def accounts(self) -> int:
        """Accounts of the ledger: one for each client where single examples are protected, else one for all.

        With groups, one for each group: at example level too, for all clients then take part in every round.
        """
        if self.bands > 1:
            return self.bands
        return len(self.sizes) if self.mechanism.clips_examples else 1

    def charged(self, round_: int, clients: Ints | None) -> tuple[int, ...] | None:
        """The accounts that a round charges, of which ``clients`` take part if that is public; None for all."""
        if self.bands > 1:
            return (round_ % self.bands,)
        return None if clients is None or self.accounts == 1 else tuple(clients.tolist())

    def draw_rate(self, phase: Phase) -> float:
        """Probability with which each unit of the round's group takes part: ``b q``, so that the batch stays B."""
        return min(1.0, self.bands * self.sample_rate(phase))

    def in_group(self, round_: int, count: int, *whose: int) -> Bools:
        """Which (count,) of the clients, or of one client's examples, are in the group of a round."""
        if self.bands == 1:
            return np.ones(count, dtype=bool)
        return groups(count, self.bands, self.seed, *whose) == round_ % self.bands

    def sample_rate(self, phase: Phase) -> float:
        """The q of each unit over all rounds, the same for all clients whatever their size."""
        if not self.mechanism.clips_examples:
            return phase.cohort_size / len(self.sizes)
        return min(1.0, phase.client_batch_size / float(self.sizes.mean())) if phase.client_batch_size else 1.0

    def batch(self, phase: Phase, clients: Ints | None = None) -> float:
        """Expected number of units in a round, of a typical cohort or of these clients."""
        if not self.mechanism.clips_examples:
            return float(phase.cohort_size)
        examples = phase.cohort_size * self.sizes.mean() if clients is None else self.sizes[clients].sum()
        return float(self.sample_rate(phase) * examples)

    def accounted_rate(self, phase: Phase) -> float:
        """The q that is accounted: `draw_rate`, or that of the deployment."""
        if self.deployment is None:
            return self.draw_rate(phase)
        return min(1.0, self.accounted_batch(phase) / self.deployment.population)

    def accounted_batch(self, phase: Phase) -> float:
        """Expected number of units in a round, here or in the deployment, whose cohort grows as the one here does."""
        if self.deployment is None:
            return self.batch(phase)
        return self.deployment.cohort * phase.cohort_size / self.first.cohort_size

    def noise_factor(self, phase: Phase) -> float:
        """Noise on the sum here over that on the deployment's, so that the noise of the mean is the deployment's."""
        return self.batch(phase) / self.accounted_batch(phase) if self.deployment is not None else 1.0

    def units_of_release(self, phase: Phase) -> float:
        """Expected number of units in what is accounted as one release: the sum over all clients, or each one's own."""
        return self.accounted_batch(phase) / (1 if self.mechanism.releases_sums else phase.cohort_size)

    def relative_noise(self, phase: Phase) -> float:
        """Noise multiplier of a phase over that of the first."""
        constant = self.mechanism.noise_schedule == "constant"
        return 1.0 if constant else self.batch(phase) / self.batch(self.first)
