"""A node's part in a session of secure aggregation: it deals shares of its secrets, masks its sum, and helps unmask.

Each step is done once: two masked sums of one session would tell their difference, and shares of both secrets of
another node would tell its sum.
"""

from dataclasses import replace

import numpy as np
import torch
from flwr.app import RecordDict

from fedbatch.masking import keys, masks, shares
from fedbatch.node.session import NOWHERE, Session, keep, known
from fedbatch.wire.check import MessageError, require
from fedbatch.wire.masks import DealPlan, Dealt, Keys, KeysPlan, MaskedPlan, Unmasked, UnmaskPlan
from fedbatch.wire.messages import PrivateContribution
from fedbatch.wire.schema import Vector


def begin(plan: KeysPlan, state: RecordDict) -> Keys:
    """Fresh secrets, in the place of those of an earlier session, and their public keys."""
    session = Session(plan.session, keys.new_secret(), keys.new_secret(), keys.new_secret())
    keep(session, state)
    mask_key, seal_key = (keys.public_key(private) for private in (session.mask_private, session.seal_private))
    return Keys(plan.clients, to_array(mask_key), to_array(seal_key))


def deal(plan: DealPlan, state: RecordDict) -> Dealt:
    """Shares of both secrets for every node, each sealed for its reader.

    Raises:
        MessageError: the session is not this node's, the plan is not one, or shares were dealt before.
    """
    session, nodes = joined(known(plan.session, state), plan), len(plan.sizes)
    pairs = [
        seed + key
        for seed, key in zip(
            shares.split(session.seed, plan.threshold, nodes),
            shares.split(session.mask_private, plan.threshold, nodes),
            strict=True,
        )
    ]
    keep(session, state)
    try:
        sealed = [
            keys.seal(session.seal_key(place, session.seal_purpose(plan.place, place)), pair)
            for place, pair in enumerate(pairs)
        ]
    except ValueError as error:
        raise MessageError(f"seal_keys: {error}") from error
    digests = [keys.digest(pair[start : start + shares.SHARE]) for pair in pairs for start in (0, shares.SHARE)]
    commitment = keys.digest(session.seed)
    return Dealt(plan.clients, to_array(b"".join(sealed)), to_array(b"".join(digests)), to_array(commitment))


def joined(session: Session, plan: DealPlan) -> Session:
    """The session with the keys of all nodes.

    Raises:
        MessageError: the plan is no session of several nodes, or has another place or other keys for this one.
    """
    nodes = len(plan.sizes)
    require(session.place == NOWHERE, "shares of this session were dealt before")
    require(nodes > 1, "a session has two nodes at least")
    require(0 <= plan.place < nodes, f"place must be in 0 .. {nodes - 1} (got {plan.place})")
    require(int(plan.sizes[plan.place]) == len(plan.clients), "sizes are not this node's at its place")
    require(
        nodes < 2 * plan.threshold <= 2 * nodes,
        f"threshold must be more than half of {nodes} nodes (got {plan.threshold})",
    )
    told = plan.mask_keys.tobytes(), plan.seal_keys.tobytes()
    for each in told:
        require(len(each) == keys.KEY * nodes, f"keys must be {keys.KEY} bytes for each of {nodes} nodes")
    both = [each[start : start + keys.KEY] for each in told for start in range(0, len(each), keys.KEY)]
    require(len(set(both)) == 2 * nodes, "two keys are the same")
    own = keys.public_key(session.mask_private), keys.public_key(session.seal_private)
    require(own == (both[plan.place], both[nodes + plan.place]), "keys are not this node's at its place")
    return replace(
        session,
        place=plan.place,
        threshold=plan.threshold,
        sizes=tuple(plan.sizes.tolist()),
        mask_keys=told[0],
        seal_keys=told[1],
    )


def mask(answer: PrivateContribution, plan: MaskedPlan, state: RecordDict, bits: int) -> PrivateContribution:
    """The sums of an answer with this node's own mask and those that it shares with the dealers.

    Args:
        answer: whole numbers.
        plan: names session and dealers.
        state: of this node.
        bits: of the modulus.

    Raises:
        MessageError: the session is not this node's, or it has masked in it before.
    """
    session = known(plan.session, state)
    dealers = tuple(plan.dealers.tolist())
    require(session.place != NOWHERE, "no shares of this session were dealt")
    require(not session.dealers, "this session has masked a sum before")
    require(session.sizes[session.place] == len(plan.clients), "clients are not those of the session")
    check_places(dealers, range(len(session.sizes)), session, "dealers")
    keep(replace(session, dealers=dealers), state)
    size = answer.update_sum.numel()
    values = np.concatenate([answer.update_sum.cpu().numpy(), answer.extra_sums.numpy()])
    hidden = masks.to_words(values, bits) + masks.sum_of_masks(own_masks(session, dealers), len(values), bits)
    numbers = torch.from_numpy(masks.to_numbers(hidden, bits))
    return replace(answer, update_sum=numbers[:size], extra_sums=numbers[size:].clone())


def own_masks(session: Session, dealers: tuple[int, ...]) -> list[tuple[int, bytes]]:
    """Sign and key of each mask of this node."""
    others = [place for place in dealers if place != session.place]
    try:
        agreed = [
            keys.agreed_key(session.mask_private, session.mask_key(place), f"masks of {session.name}")
            for place in others
        ]
    except ValueError as error:
        raise MessageError(f"mask_keys: {error}") from error
    signs = [masks.sign(session.place, place) for place in others]
    return [(1, session.seed), *zip(signs, agreed, strict=True)]


def unmask(plan: UnmaskPlan, state: RecordDict, least: int) -> Unmasked:
    """A share of the seed of each node whose masked sum has come, and of the mask key of each other dealer.

    Args:
        plan: says whose have come.
        state: of this node.
        least: clients without whom nothing is opened.

    Raises:
        MessageError: the plan would open too little, another sum than was said before, or what is sealed is not.
    """
    session, survivors = known(plan.session, state), tuple(plan.survivors.tolist())
    require(bool(session.dealers), "this session has masked no sum")
    require(tuple(plan.dealers.tolist()) == session.dealers, "dealers are not those whose masks are in the sum")
    require(session.survivors in ((), survivors), "this session has opened the sum of other nodes")
    check_places(survivors, session.dealers, session, "survivors")
    clients = sum(session.sizes[place] for place in survivors)
    require(clients >= least, f"survivors have {clients} clients, fewer than privacy.min_clients={least}")
    size = shares.SEALED
    require(len(plan.sealed) == size * len(session.dealers), f"sealed must be {size} bytes a dealer")
    keep(replace(session, survivors=survivors), state)
    text, found = plan.sealed.tobytes(), []
    for row, dealer in enumerate(session.dealers):
        seed, key = unsealed(session, dealer, text[size * row : size * (row + 1)])
        found.append(seed if dealer in survivors else key)
    return Unmasked(plan.clients, to_array(b"".join(found)))


def unsealed(session: Session, dealer: int, sealed: bytes) -> tuple[bytes, bytes]:
    """This node's shares of a dealer's seed and private mask key; `UNREADABLE` if they cannot be read."""
    key = session.seal_key(dealer, session.seal_purpose(dealer, session.place))
    try:
        pair = keys.unseal(key, sealed)
    except ValueError:  # of one dealer, for which the others need not pay
        return shares.UNREADABLE, shares.UNREADABLE
    return pair[: shares.SHARE], pair[shares.SHARE :]


def check_places(places: tuple[int, ...], among: range | tuple[int, ...], session: Session, name: str) -> None:
    """Places are distinct, ascending and known, this node's is among them, and they are enough to give secrets back.

    Raises:
        MessageError: they are not.
    """
    require(places == tuple(sorted(set(places) & set(among))), f"{name} must be places of this session, ascending")
    require(session.place in places, f"{name} are without this node")
    require(len(places) >= session.threshold, f"{name} are fewer than the threshold of {session.threshold}")


def to_array(text: bytes) -> Vector:
    """Bytes as a column of a message."""
    return np.frombuffer(text, np.uint8)
