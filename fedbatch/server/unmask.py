"""How the server opens a sum: it asks for shares of what masks the sum, and of nothing else."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fedbatch.core.errors import RunFailedError
from fedbatch.masking import keys, masks, shares
from fedbatch.server.session import Asker, Session, refuse_fewer
from fedbatch.wire.masks import Unmasked, UnmaskPlan
from fedbatch.wire.messages import PrivateContribution
from fedbatch.wire.schema import Vector

SEED, KEY = 0, 1
"""Places of a dealer's two secrets among its shares."""


def collect_secrets(session: Session, sums: Mapping[int, PrivateContribution], asker: Asker) -> dict[int, bytes]:
    """The seed of each node whose masked sum has come, and the private mask key of each other dealer, by place.

    A share that is not the one that was dealt is left out, and the node that sent it is named.

    Args:
        session: in which shares are dealt.
        sums: the masked sums that have come, by place.
        asker: of the session's nodes.

    Raises:
        RunFailedError: too few shares are good, or a dealer's give something else than it has committed to.
    """
    dealers = sorted(session.dealt)
    survivors = np.array(sorted(sums), dtype=np.int64)
    unmasking = {
        session.nodes[place]: UnmaskPlan(
            sums[place].clients,
            session.name,
            survivors,
            np.array(dealers, dtype=np.int64),
            np.concatenate([part(session.dealt[dealer].sealed, place, shares.SEALED) for dealer in dealers]),
        )
        for place in sums
    }
    answers = asker(unmasking, Unmasked, "query.unmask", {"shares": shares.SHARE * len(dealers)})
    readers = session.by_place(answers)
    return {
        dealer: secret_of(session, dealer, row, SEED if dealer in sums else KEY, readers, asker.rejected)
        for row, dealer in enumerate(dealers)
    }


def secret_of(
    session: Session, dealer: int, row: int, which: int, readers: Mapping[int, Unmasked], rejected: dict[int, str]
) -> bytes:
    """A secret of a dealer, as it has committed to it.

    Args:
        session: in which shares are dealt.
        dealer: its place.
        row: its place among those whose shares were asked for.
        which: `SEED` or `KEY`.
        readers: shares by the place of the node that sent them.
        rejected: where nodes that did not do as they should are named.

    Raises:
        RunFailedError: too few shares are good, or they give something else.
    """
    good = {}
    for place, answer in readers.items():
        share = part(answer.shares, row, shares.SHARE).tobytes()
        if keys.digest(share) == part(session.dealt[dealer].digests, 2 * place + which, keys.KEY).tobytes():
            good[place] = share
        elif share == shares.UNREADABLE:
            rejected[session.nodes[dealer]] = "it sealed what its readers cannot read"
        else:
            rejected[session.nodes[place]] = "it sent a share that nobody dealt"
    refuse_fewer(len(good), session.threshold, f"sent good shares of a secret of node {session.nodes[dealer]}")
    secret = shares.combine(dict(list(good.items())[: session.threshold]))
    if which == SEED:
        right = keys.digest(secret) == session.dealt[dealer].commitment.tobytes()
    else:
        right = keys.public_key(secret) == session.keys[dealer].mask_key.tobytes()
    if not right:
        raise RunFailedError(
            f"node {session.nodes[dealer]} dealt shares that do not give back its secret, so nothing was opened; "
            "leave it out"
        )
    return secret


def unmasked(
    session: Session, sums: Mapping[int, PrivateContribution], secrets: Mapping[int, bytes], bits: int
) -> Tensor:
    """The sum (d + e,) of masked sums, without what masks it: seeds, and masks shared with nodes that are missing."""
    words = (np.concatenate([a.update_sum.numpy(), a.extra_sums.numpy()]) for a in sums.values())
    total = sum(masks.to_words(each, bits) for each in words)
    assert isinstance(total, np.ndarray)  # there is one at least
    left = [(1, secrets[place]) for place in sums]
    for missing in secrets.keys() - sums.keys():
        for place in sums:
            key = keys.agreed_key(secrets[missing], session.keys[place].mask_key.tobytes(), f"masks of {session.name}")
            left.append((masks.sign(place, missing), key))
    return torch.from_numpy(masks.to_numbers(total - masks.sum_of_masks(left, len(total), bits), bits))


def part(values: Vector, place: int, size: int) -> Vector:
    """The bytes of one place."""
    return values[size * place : size * (place + 1)]
