"""Clients with many examples are drawn more often."""

from dataclasses import dataclass

import numpy as np

from fedbatch.samplers.sampler import Candidates, Sample
from fedbatch.samplers.systematic import inclusion, systematic


@dataclass(frozen=True)
class Weighted:
    """Without replacement, with chances in proportion to ``num_examples ** power``, at most 1 (Madow 1949).

    Attributes:
        power: 1 for chances by size; 0 for equal ones.
        correct: divide the weight of an update by the chance of its client, so that updates are on average the mean of
            all clients (Horvitz and Thompson 1952). Without it, who is drawn more often counts more.
    """

    power: float = 1.0
    correct: bool = False

    @property
    def is_unbiased(self) -> bool:
        """With correction, or where all chances are equal."""
        return self.correct or self.power == 0

    @property
    def corrects(self) -> bool:
        """As asked for."""
        return self.correct

    def __call__(self, candidates: Candidates, count: int, key: int) -> Sample:
        """``count`` clients; factors are 1 on average."""
        chances = inclusion(candidates.num_examples.astype(np.float64) ** self.power, count)
        draw = np.random.Generator(np.random.Philox(key=key))
        places = systematic(chances, draw.permutation(len(chances)), draw.random())
        factors = count / len(chances) / chances[places] if self.correct else np.zeros(0)
        return Sample(candidates.clients[places], factors)
