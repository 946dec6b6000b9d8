"""Clients on whose examples the model is worst are preferred (Cho, Wang and Joshi 2020, arXiv 2010.01243)."""

import math
from dataclasses import dataclass

import numpy as np

from fedbatch.samplers.sampler import Candidates, Sample
from fedbatch.samplers.systematic import inclusion, systematic


@dataclass(frozen=True)
class PowerOfChoice:
    """Of ``d = ratio * count`` candidates, drawn by size, those with the largest losses.

    The loss of a client is the training loss that it reported when it last took part, at the model of that round; who
    never has comes first. So nothing is asked besides, as in the paper's variant rpow-d; its pow-d asks all d
    candidates for their losses at the model of now. Candidates are drawn systematically, with chances in proportion to
    sizes.

    Attributes:
        ratio: d over the cohort size, at least 1; 1 takes all d, and is sampling by size.
    """

    ratio: float = 2.0

    is_unbiased = False
    needs_losses = True

    def __post_init__(self) -> None:
        if not self.ratio >= 1:
            raise ValueError(f"sampler.ratio must be at least 1 (got {self.ratio})")

    def __call__(self, candidates: Candidates, count: int, key: int) -> Sample:
        """``count`` clients; equal losses are ordered at random."""
        draw, size = np.random.Generator(np.random.Philox(key=key)), len(candidates.clients)
        several = min(size, math.ceil(self.ratio * count))
        chances = inclusion(candidates.num_examples, several)
        places = draw.permutation(systematic(chances, draw.permutation(size), draw.random()))
        losses = np.where(np.isnan(candidates.losses), np.inf, candidates.losses)[places]
        chosen = places[np.argsort(-losses, kind="stable")[:count]]
        return Sample(np.sort(candidates.clients[chosen]))
