"""BADGE: diverse gradients of the last layer (Ash et al. 2020)."""

from dataclasses import dataclass

import numpy as np

from fedbatch.active.selectors import Pool
from fedbatch.core.random import Ints, generator


@dataclass(frozen=True)
class Badge:
    """k-means++ seeding on the gradients that the likeliest label would give the last layer.

    That gradient is the outer product of (p - onehot) and the embedding, so inner products of two are products of two
    inner products and the (classes x d) vectors are never formed.
    """

    ranks_examples = uses_clusters = False

    def __call__(self, pool: Pool, available: Ints, *, labels_wanted: int, seed: int) -> Ints:
        """See `fedbatch.active.selectors.Selector`; begins with the longest gradient."""
        available = np.unique(available)
        h = np.asarray(pool.embeddings[available], np.float64)
        p = np.asarray(pool.probabilities[available], np.float64)
        residual = p - np.eye(p.shape[1])[p.argmax(axis=1)]
        squares = np.einsum("nd,nd->n", h, h) * np.einsum("nc,nc->n", residual, residual)
        nearest, free = squares.copy(), np.ones(len(available), bool)
        draws, chosen = generator(seed, "badge"), list[int]()
        for _ in range(min(labels_wanted, len(available))):
            best = _weighted(draws, nearest * free, free) if chosen else int(squares.argmax())
            chosen.append(best)
            free[best] = False
            distance = squares + squares[best] - 2 * (h @ h[best]) * (residual @ residual[best])
            nearest = np.minimum(nearest if len(chosen) > 1 else np.inf, np.maximum(distance, 0.0))
        return available[np.array(chosen, np.int64)]


def _weighted(draws: np.random.Generator, weights: np.ndarray, free: np.ndarray) -> int:
    """A position with probability proportional to its weight; of the free ones where all weights are zero."""
    total = np.cumsum(weights if weights.sum() > 0 else free.astype(np.float64))
    return int(np.searchsorted(total, draws.random() * total[-1], side="right"))
