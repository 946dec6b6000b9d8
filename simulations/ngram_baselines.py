"""How well letter counts predict the plays: ``python -m simulations.ngram_baselines``.

Interpolated n-grams of characters, counted on the training part of every role and scored on the held-out part that
``dataset=shakespeare_roles`` has. They see a role's whole past, where a language model sees its own sequence only.
"""

import argparse

import numpy as np
import numpy.typing as npt

from fedbatch.data.shakespeare import Ints, role_parts

Floats = npt.NDArray[np.float64]


def main() -> None:
    """Print nats a character by order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--test-fraction", type=float, default=0.1)
    parser.add_argument("--max-order", type=int, default=5)
    arguments = parser.parse_args()
    parts, symbols = role_parts(arguments.test_fraction)
    print("order  nats/character")
    for order, nats in enumerate(ngram_nats(parts, symbols, arguments.max_order)):
        print(f"{order:5d}  {nats:.3f}")


def ngram_nats(parts: list[tuple[Ints, Ints]], symbols: int, max_order: int) -> list[float]:
    """Mean of ``-ln p`` over all held-out characters, for contexts of 0 to ``max_order`` characters.

    ``p_k(c | h) = (n(h c) + t(h) p_{k-1}(c)) / (n(h) + t(h))``, where n counts and t(h) is the number of different
    characters seen after h (Witten and Bell 1991); below order 0 all symbols are alike.

    Args:
        parts: tokens of each role to count and to score, ``0 .. symbols - 1``.
        symbols: size of the alphabet; ``symbols ** (max_order + 1)`` must fit 63 bits.
        max_order: the longest context.
    """
    texts = [np.concatenate(part) for part in parts]
    counted = np.concatenate([np.arange(len(a) + len(b)) < len(a) for a, b in parts])
    p = np.full(int((~counted).sum()), 1 / symbols)
    nats = []
    for order in range(max_order + 1):
        contexts = np.concatenate([_contexts(text, order, symbols) for text in texts])
        pairs = contexts * symbols + np.concatenate(texts)
        known = counted & (contexts >= 0)
        seen, n_seen = np.unique(pairs[known], return_counts=True)
        after, first = np.unique(seen // symbols, return_index=True)
        n_after, t_after = np.add.reduceat(n_seen, first), np.diff(np.append(first, len(seen)))
        n = _look_up(contexts[~counted], after, n_after)
        t = _look_up(contexts[~counted], after, t_after)
        n_pair = _look_up(pairs[~counted], seen, n_seen)
        p = np.where(n > 0, (n_pair + t * p) / np.maximum(n + t, 1), p)
        nats.append(float(-np.log(p).mean()))
    return nats


def _contexts(text: Ints, order: int, symbols: int) -> Ints:
    """The ``order`` characters before each position as one number; -1 where there are fewer."""
    codes = np.zeros(len(text), np.int64)
    for back in range(order, 0, -1):
        codes[order:] = codes[order:] * symbols + text[order - back : len(text) - back]
    codes[:order] = -1
    return codes


def _look_up(wanted: Ints, keys: Ints, values: Ints) -> Ints:
    """``values`` at the sorted ``keys``, 0 for others."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


if __name__ == "__main__":
    main()
