"""CoreSet: cover the embeddings with few centres (Sener and Savarese 2018, k-centre greedy)."""

from dataclasses import dataclass

import numpy as np

from fedbatch.active.selectors import Pool
from fedbatch.core.random import Ints, generator

CHUNK = 1024


@dataclass(frozen=True)
class CoreSet:
    """The example farthest from all that are labelled or chosen, again and again."""

    ranks_examples = uses_clusters = False

    def __call__(self, pool: Pool, available: Ints, *, labels_wanted: int, seed: int) -> Ints:
        """See `fedbatch.active.selectors.Selector`; without any label it starts at random."""
        x = np.asarray(pool.embeddings, np.float64)
        squares = np.einsum("nd,nd->n", x, x)
        available = np.unique(available)
        labelled = np.setdiff1d(np.arange(len(x)), available)
        nearest = np.full(len(x), np.inf)
        for start in range(0, len(labelled), CHUNK):
            some = labelled[start : start + CHUNK]
            nearest = np.minimum(nearest, (squares[:, None] + squares[some] - 2 * x @ x[some].T).min(axis=1))
        nearest[labelled] = -np.inf
        chosen: list[int] = []
        for _ in range(min(labels_wanted, len(available))):
            start_anywhere = not len(labelled) and not chosen
            best = int(generator(seed, "coreset").choice(available) if start_anywhere else nearest.argmax())
            chosen.append(best)
            nearest = np.minimum(nearest, np.maximum(squares + squares[best] - 2 * x @ x[best], 0.0))
            nearest[best] = -np.inf
        return np.array(chosen, np.int64)
