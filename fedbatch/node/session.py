"""What a node keeps of a session of secure aggregation, from one message to the next: in its own state at Flower.

The state stays on the node, in memory, so that a session ends with the SuperNode that began it.
"""

from dataclasses import dataclass

from flwr.app import ConfigRecord, RecordDict

from fedbatch.masking import keys
from fedbatch.wire.check import MessageError

RECORD = "masks"
NOWHERE = -1


@dataclass(frozen=True)
class Session:
    """What a node knows of a session.

    Attributes:
        name: of the session.
        mask_private, seal_private, seed: its secrets, 32 bytes each.
        place: its own among the nodes; `NOWHERE` before it has dealt.
        threshold: shares that give a secret back.
        sizes: clients of each node.
        mask_keys, seal_keys: public keys of all nodes, 32 bytes each, by place.
        dealers: places of the nodes whose masks are in its masked sum; none before it has masked.
        survivors: places for which it has helped to unmask; none before.
    """

    name: str
    mask_private: bytes
    seal_private: bytes
    seed: bytes
    place: int = NOWHERE
    threshold: int = 0
    sizes: tuple[int, ...] = ()
    mask_keys: bytes = b""
    seal_keys: bytes = b""
    dealers: tuple[int, ...] = ()
    survivors: tuple[int, ...] = ()

    def mask_key(self, place: int) -> bytes:
        """The public mask key of a node."""
        return self.mask_keys[keys.KEY * place : keys.KEY * (place + 1)]

    def seal_purpose(self, dealer: int, reader: int) -> str:
        """What names the key with which one node seals for another."""
        return f"shares of {self.name} from {dealer} to {reader}"

    def seal_key(self, other: int, purpose: str) -> bytes:
        """The key that this node shares with another for sealing."""
        return keys.agreed_key(self.seal_private, self.seal_keys[keys.KEY * other : keys.KEY * (other + 1)], purpose)


def known(name: str, state: RecordDict) -> Session:
    """The session of that name.

    Raises:
        MessageError: this node has no such session.
    """
    record = state.config_records.get(RECORD)
    if record is None or record["name"] != name:
        raise MessageError("this node has no such session; it was started again, or another session has begun")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
    return Session(**values)  # type: ignore[arg-type]  # written by `keep`


def keep(session: Session, state: RecordDict) -> None:
    """Keep a session until the next message, in the place of an earlier one."""
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(session).items()}
    state[RECORD] = ConfigRecord(values)
