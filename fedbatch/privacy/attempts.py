"""What an attempt at a release was made of, so that doing it again is the same release or another, never half of each.

A round that a crash undid is done again with the same draws. If what is summed is the same, so is the release, and it
is charged once. If it is not, because a node stays away now that answered then, the same noise on another sum would
tell the difference of the two exactly: the round is then charged and drawn anew, as another attempt.

The file has one line for each attempt, with a keyed digest of what came back: equal digests are equal answers, and
nothing else follows from them.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from fedbatch.privacy.ledger import LedgerEntry
from fedbatch.privacy.plan import PrivacyPlan

FILE = "answers.jsonl"
Digests = dict[str, str]


def digests(privacy: PrivacyPlan, due: LedgerEntry, answers: Iterable[Any]) -> Digests:
    """Keyed digests of the answers to an attempt.

    One for all where only their sum is released; one for each node where every answer is a release of its own.
    """
    contents = {str(a.clients[:1].tolist()): [a.clients.tobytes(), *map(_bytes, _tensors(a))] for a in answers}
    name = (due.round, due.params, due.attempt)
    if not privacy.mechanism.releases_sums:
        return {node: privacy.randomness.digest(name, parts) for node, parts in contents.items()}
    everything = [part for node in sorted(contents) for part in contents[node]]
    return {"all": privacy.randomness.digest(name, everything)}


def settle(path: Path, due: LedgerEntry, found: Mapping[str, str], is_replay: bool) -> bool:
    """Whether an attempt may be released: nothing that came back is other than when it was made before.

    Args:
        path: of the file; what came back is on disk when this returns.
        due: the attempt.
        found: `digests` of what came back.
        is_replay: whether the attempt was charged before; a new one has nothing to be compared with.
    """
    before = _read(path, due) if is_replay else {}
    if any(before.get(node, digest) != digest for node, digest in found.items()):
        return False
    if found.items() - before.items():
        line = {"round": due.round, "params": due.params, "attempt": due.attempt, "answers": dict(found)}
        with open(path, "a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
    return True


def _read(path: Path, due: LedgerEntry) -> Digests:
    """What came back before; a line cut short by a crash was not released."""
    before: Digests = {}
    for line in path.read_text().split("\n")[:-1] if path.exists() else []:
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue
        if (values["round"], values["params"], values["attempt"]) == (due.round, due.params, due.attempt):
            before |= values["answers"]
    return before


def _tensors(answer: Any) -> Iterable[Tensor]:
    values = (getattr(answer, field.name) for field in fields(answer))
    return (value for value in values if isinstance(value, Tensor))


def _bytes(values: Tensor) -> bytes:
    return values.detach().cpu().contiguous().numpy().tobytes()
