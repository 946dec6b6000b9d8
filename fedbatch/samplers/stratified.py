"""Every group of clients has its share of every cohort."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedbatch.core.random import Ints
from fedbatch.core.tables import read_table
from fedbatch.samplers.sampler import Candidates, Sample
from fedbatch.samplers.systematic import systematic


@dataclass(frozen=True)
class Stratified:
    """Proportional allocation: of P_h of P clients, ``count * P_h / P`` take part, rounded up or down at random.

    All clients have the same chance, ``count / P``, so that weights need no correction; the mean varies less, by what
    the strata differ. Of strata that are smaller than ``P / count``, neighbours share a client.

    Attributes:
        strata: number of strata by numbers of examples: equally many clients each, from few examples to many.
        file: Parquet or CSV with columns ``client`` and ``stratum`` (a number), in the place of sizes.
    """

    strata: int = 4
    file: str | None = None

    is_unbiased = True

    def __post_init__(self) -> None:
        if self.strata < 1:
            raise ValueError(f"sampler.strata must be at least 1 (got {self.strata})")
        clients = self.tables[0] if self.tables else np.zeros(0)
        if len(np.unique(clients)) < len(clients):
            raise ValueError(f"sampler.file: {self.file} names a client twice")

    @cached_property
    def tables(self) -> Sequence[np.ndarray]:
        """Clients, ascending, and their strata (n,), where they are read from a file."""
        if self.file is None:
            return ()
        read = read_table("sampler.file", self.file, ("client", "stratum"))
        order = np.argsort(read["client"], kind="stable")
        return read["client"][order], read["stratum"][order]

    def check_clients(self, clients: Ints) -> None:
        """Every client has a stratum.

        Raises:
            ValueError: one has not.
        """
        if self.tables and len(lost := np.setdiff1d(clients, self.tables[0])):
            raise ValueError(f"sampler.file: {self.file} has no stratum of client {lost[0]}")

    def of(self, candidates: Candidates) -> np.ndarray:
        """The stratum of each candidate, (P,)."""
        if self.tables:
            return self.tables[1][np.searchsorted(self.tables[0], candidates.clients)]
        ranks = np.argsort(np.argsort(candidates.num_examples, kind="stable"), kind="stable")
        return ranks * self.strata // len(ranks)

    def __call__(self, candidates: Candidates, count: int, key: int) -> Sample:
        """``count`` clients."""
        draw, size = np.random.Generator(np.random.Philox(key=key)), len(candidates.clients)
        order = np.lexsort((draw.random(size), self.of(candidates)))  # by stratum, at random in each
        places = systematic(np.full(size, count / size), order, draw.random())
        return Sample(candidates.clients[places])
