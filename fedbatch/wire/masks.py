"""The messages of a session of secure aggregation: keys, shares, masked sums, and what takes the masks off.

Nodes of a session are numbered by place, from 0. `fedbatch.server.masked` and `fedbatch.node.masked` are its two ends.
"""

from dataclasses import dataclass, field

from fedbatch.wire.messages import PrivatePlan, no_counts
from fedbatch.wire.schema import Bytes, Ids, Listed


@dataclass(frozen=True)
class KeysPlan:
    """The server opens a session.

    Attributes:
        clients: int64 (K,) ids of the clients for whom the node will work, ascending.
        session: its name; no two sessions have the same.
    """

    clients: Ids
    session: str


@dataclass(frozen=True)
class Keys:
    """A node's public keys.

    Attributes:
        clients: as in the plan.
        mask_key: uint8 (32,) with which masks are agreed.
        seal_key: uint8 (32,) with which shares are sealed.
    """

    clients: Ids
    mask_key: Bytes
    seal_key: Bytes


@dataclass(frozen=True)
class DealPlan:
    """The keys of all n nodes, and the question for shares of the node's secrets.

    Attributes:
        clients, session: as in `KeysPlan`.
        place: of this node.
        threshold: shares that give a secret back.
        sizes: int64 (n,) clients of each node.
        mask_keys, seal_keys: uint8 (32 n,) of all nodes, by place.
    """

    clients: Ids
    session: str
    place: int
    threshold: int
    sizes: Listed
    mask_keys: Bytes
    seal_keys: Bytes


@dataclass(frozen=True)
class Dealt:
    """A node's shares for all n nodes, itself included.

    Attributes:
        clients: as in the plan.
        sealed: uint8 (80 n,) for each node the shares of seed and of private mask key, which it alone can read.
        digests: uint8 (64 n,) of these two shares, by which they are known again.
        commitment: uint8 (32,) digest of the seed.
    """

    clients: Ids
    sealed: Bytes
    digests: Bytes
    commitment: Bytes


@dataclass(frozen=True)
class MaskedPlan(PrivatePlan):
    """As `PrivatePlan`; the answer, a `PrivateContribution`, is masked.

    Attributes:
        session: its name.
        dealers: int64 (m,) places of the nodes whose masks the answer has, ascending.
    """

    session: str = ""
    dealers: Listed = field(default_factory=no_counts)


@dataclass(frozen=True)
class UnmaskPlan:
    """Which masked sums have come, and the question for shares of what masks them.

    Attributes:
        clients, session: as in `KeysPlan`.
        survivors: int64 (s,) places of the nodes whose masked sums have come, ascending.
        dealers: as in `MaskedPlan`.
        sealed: uint8 (80 m,) what each dealer has sealed for this node.
    """

    clients: Ids
    session: str
    survivors: Listed
    dealers: Listed
    sealed: Bytes


@dataclass(frozen=True)
class Unmasked:
    """A node's shares.

    Attributes:
        clients: as in the plan.
        shares: uint8 (32 m,) for each dealer the share of its seed if it is among the survivors, else of its key.
    """

    clients: Ids
    shares: Bytes
