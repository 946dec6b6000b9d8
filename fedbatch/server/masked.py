"""The server's part in secure aggregation: it sees masked sums of nodes, and opens the sum of these alone.

It asks each node four times: for keys, for shares of its secrets, for its masked sum, and for shares that unmask the
sum of those whose masked sums have come. Nodes may drop out before each question, as long as more than half stay.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch

from fedbatch.core.errors import RunFailedError
from fedbatch.masking import keys, shares
from fedbatch.server.exchange import tell_left_out
from fedbatch.server.session import Asker, Session, refuse_fewer
from fedbatch.server.unmask import collect_secrets, unmasked
from fedbatch.wire.check import MessageError, SquaredLengths, check
from fedbatch.wire.masks import DealPlan, Dealt, Keys, KeysPlan, MaskedPlan
from fedbatch.wire.messages import PrivateContribution, PrivatePlan


def open_sum(
    asker: Asker,
    plans: Mapping[int, PrivatePlan],
    bits: int,
    num_extras: int,
    fewest: int,
    check_sum: Callable[[PrivateContribution, PrivatePlan, SquaredLengths], None],
) -> PrivateContribution:
    """The sum of the answers of all nodes that have not dropped out: whole numbers modulo ``2^bits``.

    Args:
        asker: of this round's nodes.
        plans: one for each node.
        bits: of the modulus.
        num_extras: extra coordinates of the release.
        fewest: clients without whom nothing is opened.
        check_sum: raises `MessageError` for an opened sum that clipping and noise do not allow.

    Raises:
        NoAnswerError: too few clients have stayed for the run.
        RunFailedError: too few for the sum to be opened, or what is opened is no such sum.
    """
    session = deal(plans, asker)
    dealers = np.array(sorted(session.dealt), dtype=np.int64)
    refuse_fewer(len(dealers), session.threshold, "dealt shares")
    masking = {
        node: MaskedPlan(**vars(plans[node]), session=session.name, dealers=dealers)
        for place, node in enumerate(session.nodes)
        if place in session.dealt
    }
    size = next(iter(plans.values())).params.numel()
    lengths = {"update_sum": size, "extra_sums": num_extras}
    answers = asker(masking, PrivateContribution, "train", lengths, lambda answer: check_masked(answer, bits))
    sums = session.by_place(answers)
    refuse_fewer(len(sums), session.threshold, "sent a masked sum")
    clients = np.sort(np.concatenate([answer.clients for answer in sums.values()]))
    if len(clients) < fewest:
        raise RunFailedError(
            f"{len(clients)} contributions are fewer than privacy.min_clients={fewest}, so their sum has too little "
            "noise and is not opened"
        )
    total = unmasked(session, sums, collect_secrets(session, sums, asker), bits)
    first = next(iter(sums.values()))
    opened = replace(first, update_sum=total[:size], extra_sums=total[size:].clone(), clients=clients)
    try:
        check_sum(opened, replace(next(iter(plans.values())), clients=clients), check(opened, {}))
    except MessageError as error:
        raise RunFailedError(
            f"round {opened.round}: the opened sum cannot be ({error}); a node has sent something else, and masks hide "
            "which: leave out nodes that you do not trust, or use privacy=example_local"
        ) from error
    tell_left_out(asker.named)
    return opened


def deal(plans: Mapping[int, PrivatePlan], asker: Asker) -> Session:
    """A new session: keys of all nodes, and the shares of those that deal."""
    name = os.urandom(16).hex()
    opening = {node: KeysPlan(plan.clients, name) for node, plan in plans.items()}
    said = asker(opening, Keys, "query.keys", {"mask_key": keys.KEY, "seal_key": keys.KEY}, check_keys)
    nodes = sorted(said, key=lambda node: int(plans[node].clients[0]))
    threshold = len(nodes) // 2 + 1
    sizes = np.array([len(plans[node].clients) for node in nodes], dtype=np.int64)
    mask_keys = np.concatenate([said[node].mask_key for node in nodes])
    seal_keys = np.concatenate([said[node].seal_key for node in nodes])
    dealing = {
        node: DealPlan(plans[node].clients, name, place, threshold, sizes, mask_keys, seal_keys)
        for place, node in enumerate(nodes)
    }
    lengths = {
        "sealed": shares.SEALED * len(nodes),
        "digests": 2 * keys.KEY * len(nodes),
        "commitment": keys.KEY,
    }
    dealt = asker(dealing, Dealt, "query.deal", lengths)
    session = Session(name, nodes, [said[node] for node in nodes], threshold, {})
    return replace(session, dealt=session.by_place(dealt))


def check_keys(answer: Keys) -> None:
    """Keys are two, and such as others can agree with: else every other node would refuse them.

    Raises:
        MessageError: they are not.
    """
    both = answer.mask_key.tobytes(), answer.seal_key.tobytes()
    if both[0] == both[1]:
        raise MessageError("mask_key and seal_key are the same")
    for name, key in zip(("mask_key", "seal_key"), both, strict=True):
        try:
            keys.agreed_key(keys.new_secret(), key, "a check")
        except ValueError:
            raise MessageError(f"{name} is no key to agree with") from None


def check_masked(answer: PrivateContribution, bits: int) -> None:
    """A masked sum is whole numbers modulo ``2^bits``.

    Raises:
        MessageError: it is not.
    """
    half = 2.0 ** (bits - 1)
    for name in ("update_sum", "extra_sums"):
        values = getattr(answer, name)
        if values.dtype != torch.float64:
            raise MessageError(f"{name} must be float64 (got {values.dtype})")
        if not (torch.equal(values, values.round()) and bool(((-half <= values) & (values < half)).all())):
            raise MessageError(f"{name} must be whole numbers modulo 2^{bits}")
