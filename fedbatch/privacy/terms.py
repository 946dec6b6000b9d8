"""The terms of a run's releases: how likely each unit takes part, in how large a batch, with how much noise."""

from dataclasses import dataclass

from fedbatch.controllers.phase import Phase
from fedbatch.core.random import Ints
from fedbatch.privacy.mechanisms import Mechanism


@dataclass(frozen=True)
class SamplingPlan:
    """Constants of the configuration; nothing here depends on data, or on which units were drawn.

    Attributes:
        mechanism: the mechanism.
        sizes: int64 (P,), each client's number of examples; declared, and taken as public.
        first: the first phase.
    """

    mechanism: Mechanism
    sizes: Ints
    first: Phase

    @property
    def units(self) -> int:
        """How many units are protected, clients or examples."""
        return len(self.sizes) if not self.mechanism.clips_examples else int(self.sizes.sum())

    @property
    def accounts(self) -> int:
        """Accounts of the ledger: one for each client where single examples are protected, else one for all."""
        return len(self.sizes) if self.mechanism.clips_examples else 1

    def sample_rate(self, phase: Phase) -> float:
        """The q of each unit, the same for all clients whatever their size."""
        if not self.mechanism.clips_examples:
            return phase.cohort_size / len(self.sizes)
        return min(1.0, phase.client_batch_size / float(self.sizes.mean())) if phase.client_batch_size else 1.0

    def batch(self, phase: Phase, clients: Ints | None = None) -> float:
        """Expected number of units in a round, of a typical cohort or of these clients."""
        if not self.mechanism.clips_examples:
            return float(phase.cohort_size)
        examples = phase.cohort_size * self.sizes.mean() if clients is None else self.sizes[clients].sum()
        return float(self.sample_rate(phase) * examples)

    def relative_noise(self, phase: Phase) -> float:
        """Noise multiplier of a phase over that of the first."""
        constant = self.mechanism.noise_schedule == "constant"
        return 1.0 if constant else self.batch(phase) / self.batch(self.first)
