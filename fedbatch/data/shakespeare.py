"""Shakespeare's plays as character sequences, each speaking role a natural client (as in McMahan et al. 2017)."""

import logging
import lzma
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedbatch.core import random as keys
from fedbatch.data import embedded
from fedbatch.data.dataset import Dataset

Ints = npt.NDArray[np.int64]

ROLES = Path(__file__).with_name("shakespeare_roles.txt.xz")
ROLES_SHA256 = "9a69c23b852c26503290f3e94b09b0a5690fc900cf1b6e8a83e81e1a774a0101"
ROLE = "#"  # begins the line that names a play and a role; no play uses it

NO_TARGET = -100  # what torch's cross-entropy leaves out
MASK_SEED = 2017

log = logging.getLogger("fedbatch")


def shakespeare_roles(
    task: str = "causal",
    context: int = 64,
    test_fraction: float = 0.1,
    min_sequences: int = 4,
    mask_fraction: float = 0.15,
) -> Dataset:
    """Sequences of ``context`` characters from 37 plays; the owner of a sequence is the role that speaks it.

    A role's speeches are joined in the order in which they are spoken. The last ``test_fraction`` of its characters go
    to the test split, and both parts are cut into sequences without overlap; what is left at an end is dropped.
    ``num_classes`` is the number of symbols of all plays.

    Tasks:
        causal: targets are the next characters, for a model that sees only earlier ones.
        masked: ``round(mask_fraction * context)`` positions of each sequence, chosen once and for all by a keyed hash,
            hold a mask symbol, the last one, in the input; their characters are the targets, and all other targets are
            -100, which a loss leaves out. (Unlike in BERT, none of them keeps its character or gets a random one.)

    Args:
        task: "causal" or "masked".
        context: characters of a sequence, at least 2.
        test_fraction: in (0, 1).
        min_sequences: roles with fewer training sequences are left out, with their part of the test split, and counted
            in the log; at least 1.
        mask_fraction: in (0, 1), of the masked task.

    Returns:
        Inputs and targets int64 ``(sequences, context)``.

    Raises:
        ValueError: an argument out of range, or so large that no sequence is left.
    """
    if task not in ("causal", "masked"):
        raise ValueError(f"dataset.task must be causal or masked (got {task})")
    if context < 2 or min_sequences < 1:
        raise ValueError(f"dataset.context must be >= 2 and min_sequences >= 1 (got {context} and {min_sequences})")
    if not (0 < test_fraction < 1 and 0 < mask_fraction < 1):
        raise ValueError(f"dataset: fractions must be in (0, 1) (got test {test_fraction} and mask {mask_fraction})")
    if task == "masked" and not 1 <= round(mask_fraction * context) < context:
        raise ValueError("dataset: some, not all, positions must be masked; change mask_fraction or context")
    parts, classes = role_parts(test_fraction)
    train: list[Ints] = []
    test: list[Ints] = []
    owner: list[Ints] = []
    for first, last in parts:
        sequences = windows(first, context)
        if len(sequences) >= min_sequences:
            owner.append(np.full(len(sequences), len(train)))
            train.append(sequences)
            test.append(windows(last, context))
    if not train or not sum(map(len, test)):
        raise ValueError("dataset: no sequence is left; lower dataset.context or dataset.min_sequences")
    log.info(
        "%d roles; %d with fewer than %d sequences are left out", len(train), len(parts) - len(train), min_sequences
    )
    splits = [np.concatenate(train), np.concatenate(test)]
    if task == "causal":
        pairs = [(np.ascontiguousarray(s[:, :-1]), np.ascontiguousarray(s[:, 1:])) for s in splits]
    else:
        count, classes = round(mask_fraction * context), classes + 1
        pairs = [masked(s[:, :-1], count, classes - 1, i) for i, s in enumerate(splits)]
    return Dataset("shakespeare_roles", *pairs[0], *pairs[1], classes, np.concatenate(owner))


def roles() -> dict[str, str]:
    """The words of each of the 1,354 roles, by "play/ROLE"."""
    text = lzma.decompress(embedded.read(ROLES, ROLES_SHA256)).decode()
    parts = (part.partition("\n") for part in text.split(ROLE)[1:])
    return {name: words for name, _, words in parts}


def role_parts(test_fraction: float) -> tuple[list[tuple[Ints, Ints]], int]:
    """The tokens of each role, first part and last, and the number of symbols of all roles together."""
    texts = [np.frombuffer(words.encode(), np.uint8) for words in roles().values()]
    symbols = np.unique(np.concatenate(texts))
    tokens = [np.searchsorted(symbols, text) for text in texts]
    cuts = [len(t) - round(test_fraction * len(t)) for t in tokens]
    return [(t[:cut], t[cut:]) for t, cut in zip(tokens, cuts, strict=True)], len(symbols)


def windows(tokens: Ints, context: int) -> Ints:
    """Sequences (n, context + 1), of which each begins with the last token of the one before.

    >>> windows(np.arange(8), 3).tolist()
    [[0, 1, 2, 3], [3, 4, 5, 6]]
    """
    starts = np.arange(0, len(tokens) - context, context)
    return tokens[starts[:, None] + np.arange(context + 1)]


def masked(sequences: Ints, count: int, mask: int, split: int) -> tuple[Ints, Ints]:
    """Inputs with ``count`` random positions of each sequence (n, T) set to ``mask``, and the targets at these.

    >>> inputs, targets = masked(np.arange(4)[None], 1, mask=9, split=0)
    >>> (inputs == 9).sum(), (targets != NO_TARGET).sum(), targets[inputs == 9] == np.arange(4)[inputs[0] == 9]
    (np.int64(1), np.int64(1), array([ True]))
    """
    rows, columns = np.arange(len(sequences))[:, None], np.arange(sequences.shape[1])
    order = keys.bits(keys.key(MASK_SEED, "mask", split), rows, columns).argsort(axis=1, kind="stable")
    chosen = np.zeros(sequences.shape, bool)
    np.put_along_axis(chosen, order[:, :count], True, axis=1)
    return np.where(chosen, mask, sequences), np.where(chosen, sequences, NO_TARGET)
