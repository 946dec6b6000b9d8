"""What goes wrong, on purpose: faults of nodes and of the network, drawn by seed, so that a study of them reproduces.

A `FaultyGrid` stands between the server and its Grid and spoils replies to ``train`` messages. A fault strikes a node
with all the clients it hosts; ``nodes=population`` makes that one client a node.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from fedbatch.core.random import generator
from fedbatch.runtime.flower import stamp

SHARES = ("dropout", "crash", "straggler", "corrupted", "not_finite", "heavy", "duplicate", "stale")
ATTACKS = ("sign_flip", "scaled", "little")
VECTORS = ("update_sum", "updates")
HEAVY, CRASHED = 1_000_000_000, 1
Values = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Faults:
    """Shares of nodes, each in [0, 1] and drawn anew every round, except the adversaries, who stay.

    Attributes:
        dropout: never answer.
        crash: answer with an error.
        straggler: answer after ``straggler_seconds``, or not at all where that is past the round's time limit.
        straggler_seconds: how late.
        corrupted: answer with an update of the wrong length.
        not_finite: answer with not-a-number in the update.
        heavy: claim a weight of 1e9.
        duplicate: answer twice.
        stale: answer as in the round before, if they have ever answered.
        adversaries: attack, the same nodes all the time.
        attack: "sign_flip" and "scaled" (the update times -strength or strength), or "little" (all send the honest mean
            minus strength times the honest standard deviation; Baruch et al. 2019).
        strength: of the attack.
    """

    dropout: float = 0.0
    crash: float = 0.0
    straggler: float = 0.0
    straggler_seconds: float = 0.0
    corrupted: float = 0.0
    not_finite: float = 0.0
    heavy: float = 0.0
    duplicate: float = 0.0
    stale: float = 0.0
    adversaries: float = 0.0
    attack: str = "sign_flip"
    strength: float = 10.0

    def __post_init__(self) -> None:
        for name in (*SHARES, "adversaries"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"faults: {name} must be in [0, 1] (got {getattr(self, name)})")
        if self.straggler_seconds < 0:
            raise ValueError(f"faults: straggler_seconds must not be negative (got {self.straggler_seconds})")
        if self.attack not in ATTACKS:
            raise ValueError(f"faults: attack must be one of {', '.join(ATTACKS)} (got {self.attack!r})")

    def struck(self, fault: str, nodes: list[int], seed: int, round_: int) -> set[int]:
        """The nodes that a fault strikes in a round: an exact share of them, rounded, drawn by seed and round."""
        order = generator(seed, f"faults/{fault}", round_).permutation(sorted(nodes))
        return {int(node) for node in order[: round(getattr(self, fault) * len(nodes))]}


class FaultyGrid:
    """A Grid whose nodes fail. Everything but ``send_and_receive`` is the Grid's own.

    Args:
        grid: the Grid.
        faults: what goes wrong.
        seed: run seed.

    Attributes:
        answered: nodes that have answered before, and so have something stale to send; all that it remembers.
    """

    by_reference = False  # what is spoiled are messages as they are written down

    def __init__(self, grid: Grid, faults: Faults, seed: int):
        self._grid, self._faults, self._seed = grid, faults, seed
        self._adversaries = faults.struck("adversaries", list(grid.get_node_ids()), seed, 0)
        self.answered: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Replies, spoiled where they answer a ``train`` message."""
        asked = {message.metadata.dst_node_id: message for message in messages}
        start = time.monotonic()
        replies = self._grid.send_and_receive(asked.values(), timeout=timeout)
        if any(message.metadata.message_type != "train" for message in asked.values()):
            return iter(replies)
        return self._spoiled(list(replies), asked, start, timeout)

    def _spoiled(
        self, replies: list[Message], asked: dict[int, Message], start: float, timeout: float | None
    ) -> Iterator[Message]:
        if not asked:
            return
        round_ = int(next(iter(asked.values())).metadata.group_id)
        struck = {fault: self._faults.struck(fault, list(asked), self._seed, round_) for fault in SHARES}
        self._attack([r for r in replies if not r.has_error()])
        late = [r for r in replies if r.metadata.src_node_id in struck["straggler"]]
        for reply in replies:
            if reply not in late:
                yield from self._answers(reply, asked, struck)
        if late:
            seconds = self._faults.straggler_seconds
            time.sleep(max(0.0, start + (seconds if timeout is None else min(seconds, timeout)) - time.monotonic()))
            for reply in late if timeout is None or seconds <= timeout else ():
                yield from self._answers(reply, asked, struck)

    def _answers(self, reply: Message, asked: dict[int, Message], struck: dict[str, set[int]]) -> Iterator[Message]:
        """What arrives of one reply: nothing, itself, something spoiled, or two of it."""
        node = reply.metadata.src_node_id
        if reply.has_error() or node in struck["dropout"]:
            if reply.has_error():
                yield reply
            return
        if node in struck["crash"]:
            error = Message(Error(CRASHED, "node crashed (faults.crash)"), reply_to=asked[node])
            yield stamp(error, f"{reply.metadata.message_id}-crash")
            return
        if node in struck["stale"] and node in self.answered:
            reply.content = _stale(reply.content)
        self.answered.add(node)
        for fault, spoil in SPOILED.items():
            if node in struck[fault]:
                reply.content = spoil(reply.content)
        yield reply
        if node in struck["duplicate"]:
            yield reply

    def _attack(self, replies: list[Message]) -> None:
        """Replace the adversaries' updates; "little" looks at those of the others."""
        attack, strength = self._faults.attack, self._faults.strength
        honest = [vector(r.content) for r in replies if r.metadata.src_node_id not in self._adversaries]
        for reply in replies:
            if reply.metadata.src_node_id not in self._adversaries:
                continue
            if attack == "little":
                rows = np.stack(honest).astype(np.float64)
                lie = rows.mean(axis=0) - strength * rows.std(axis=0)
            else:
                lie = vector(reply.content) * (-strength if attack == "sign_flip" else strength)
            told = float(np.linalg.norm(vector(reply.content).astype(np.float64)))
            reply.content = with_array(reply.content, *place(reply.content), lie)
            if "sq_norms" in reply.content.array_records["clients"] and told:  # a lie that agrees with itself
                squares = reply.content.array_records["clients"]["sq_norms"].numpy()
                longer = (float(np.linalg.norm(lie.astype(np.float64))) / told) ** 2
                reply.content = with_array(reply.content, "clients", "sq_norms", squares * longer)


def place(content: RecordDict) -> tuple[str, str]:
    """Record and name of the update in a reply, or of what stands for it."""
    if "payload" in content.array_records["clients"] and content.array_records["clients"]["payload"].shape[0]:
        return "clients", "payload"
    return "arrays", next(name for name in VECTORS if name in content["arrays"])


def vector(content: RecordDict) -> Values:
    """The update in a reply, or what stands for it."""
    record, name = place(content)
    return content.array_records[record][name].numpy()


def with_array(content: RecordDict, record: str, name: str, values: Values) -> RecordDict:
    """The content with one array replaced, of the same dtype; the original stays as it is."""
    old = content.array_records[record][name]
    arrays = dict(content.array_records[record]) | {name: Array(values.astype(old.dtype))}
    return RecordDict({**content, record: ArrayRecord(arrays)})


def _shortened(content: RecordDict) -> RecordDict:
    return with_array(content, *place(content), vector(content)[:-1])


def _not_finite(content: RecordDict) -> RecordDict:
    values = vector(content).copy()
    if values.dtype == np.uint8:
        values[:] = 255  # NaN, as a number of any size
    else:
        values[:1] = np.nan
    return with_array(content, *place(content), values)


def _heavy(content: RecordDict) -> RecordDict:
    name = "weights" if "weights" in content.array_records["clients"] else "num_examples"
    return with_array(content, "clients", name, content.array_records["clients"][name].numpy() * HEAVY)


def _stale(content: RecordDict) -> RecordDict:
    """As if of the round before: its values would be others, but nobody looks at those of another round."""
    plan = dict(content.config_records["plan"])
    return RecordDict({**content, "plan": ConfigRecord(plan | {"round": cast(int, plan["round"]) - 1})})


SPOILED: dict[str, Callable[[RecordDict], RecordDict]] = {
    "corrupted": _shortened,
    "not_finite": _not_finite,
    "heavy": _heavy,
}
