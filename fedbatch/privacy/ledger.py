"""The ledger: every release of a run with its cost, written down before it is made.

Append-only, in `ServerState` and as ``ledger.jsonl`` in the run folder. What a run has spent is a pure function of it.
A release is named by its round, the parameters it was computed at and the attempt. Doing it again after a crash uses
the same keys, gives the same values, and is charged once; where something else would come out, it is another attempt.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedbatch.core.errors import ConfigError
from fedbatch.core.random import Ints
from fedbatch.privacy.accounting import PhaseSpec

FILE = "ledger.jsonl"
AGAIN = "again"
MOST_SCHEDULES = 4


@dataclass(frozen=True)
class LedgerEntry:
    """One round's release.

    Attributes:
        round: index of the round.
        params: fingerprint of the parameters it is computed at.
        sample_rate: q, probability with which each unit takes part.
        noise_multiplier: accounted noise of everything released together, in clip norms.
        steps: how many times it is done.
        clients: accounts that are charged: ids of clients, where the server sees who takes part, or the round's group;
            None for all units alike.
        attempt: how often the round was done before at these parameters with something else coming out.
        how: on what it is computed (executor, nodes, device, threads), on which rounding depends, and with which nonce.
    """

    round: int
    params: str
    sample_rate: float
    noise_multiplier: float
    steps: int
    clients: tuple[int, ...] | None = None
    attempt: int = 0
    how: str = ""

    def again(self) -> "LedgerEntry":
        """The next attempt at it."""
        return replace(self, attempt=self.attempt + 1)

    @property
    def question(self) -> str:
        """What is released beside an update: a temperature, or `AGAIN`, what a round that is done again costs all."""
        return self.params.partition("/")[2]

    @property
    def cost(self) -> tuple[float, float]:
        """What decides the price of one step."""
        return self.sample_rate, self.noise_multiplier


@dataclass(frozen=True)
class Ledger:
    """All releases so far.

    Attributes:
        accounts: 1 where all units are charged alike, or the number of clients, by id, or of groups, each with its own.
        releases: in the order in which they were charged.

    >>> once = Ledger().charge(LedgerEntry(0, "ab", 0.1, 1.0, 1))
    >>> once.charge(LedgerEntry(0, "ab", 0.1, 1.0, 1)).schedules()      # a replay costs nothing
    [[(0.1, 1.0, 1)]]
    """

    accounts: int = 1
    releases: Mapping[LedgerEntry, None] = field(default_factory=dict)
    _steps: Mapping[tuple[float, float], Ints] = field(default_factory=dict, repr=False, compare=False)
    _of_round: Mapping[int, tuple[LedgerEntry, ...]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, accounts: int, releases: Iterable[LedgerEntry]) -> "Ledger":
        """The ledger of these releases; what stands twice is charged once."""
        ledger = cls(accounts)
        for release in releases:
            ledger = ledger.charge(release)
        return ledger

    def charge(self, release: LedgerEntry) -> "Ledger":
        """The ledger with this release; the same ledger if it is there already."""
        if release in self.releases:
            return self
        steps = self._steps.get(release.cost, np.zeros(self.accounts, np.int64)).copy()
        steps[slice(None) if release.clients is None else list(release.clients)] += release.steps
        of_round = {**self._of_round, release.round: (*self._of_round.get(release.round, ()), release)}
        return Ledger(self.accounts, {**self.releases, release: None}, {**self._steps, release.cost: steps}, of_round)

    def attempt(self, release: LedgerEntry) -> LedgerEntry:
        """The release as the attempt that is due: the last one again if nothing about it differs, else the next."""
        same = (r for r in self._of_round.get(release.round, ()) if r.params == release.params)
        last = max(same, key=lambda r: r.attempt, default=None)
        if last is None:
            return release
        again = replace(release, attempt=last.attempt)
        return again if again == last else again.again()

    def done_before(self, due: LedgerEntry) -> LedgerEntry | None:
        """The last release of the same round and question, at whatever parameters; None if there is none."""
        same = [r for r in self._of_round.get(due.round, ()) if r.question == due.question]
        return same[-1] if same else None

    def schedules(self) -> list[list[PhaseSpec]]:
        """What accounts have spent, as phases; only those that no other account exceeds in every phase.

        Where more than a few are left, one that exceeds them all stands for them: an upper bound.
        """
        if not self._steps:
            return [[]]
        spent = np.stack(list(self._steps.values()), axis=1)  # (accounts, costs)
        worst = [spent.max(axis=0)]
        if spent.shape[1] > 1:
            distinct = np.unique(spent, axis=0)
            kept = [r for r in distinct if not ((distinct >= r).all(axis=1) & (distinct > r).any(axis=1)).any()]
            worst = kept if len(kept) <= MOST_SCHEDULES else worst
        return [[(q, sigma, int(n)) for (q, sigma), n in zip(self._steps, row, strict=True)] for row in worst]

    def most(self) -> list[PhaseSpec]:
        """Of each kind of release as many as the account has that has most of them: an upper bound for all accounts."""
        return [(q, sigma, int(steps.max())) for (q, sigma), steps in self._steps.items()]


def write(path: Path, release: LedgerEntry) -> None:
    """Append a release to the file and wait until it is on disk."""
    with open(path, "a") as file:
        file.write(json.dumps(vars(release)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[LedgerEntry]:
    """The releases in a file. A last line cut short by a crash was never sent, for charging comes first; it goes.

    Raises:
        ConfigError: another line cannot be read, so that nobody knows what has been spent.
    """
    torn = path.read_bytes().rpartition(b"\n")[2] if path.exists() else b""
    if torn:
        os.truncate(path, path.stat().st_size - len(torn))
    return peek(path)


def peek(path: Path) -> list[LedgerEntry]:
    """The releases in a file, which is left as it is: its run may be going on.

    Raises:
        ConfigError: as `read`.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    releases = []
    for number, line in enumerate(lines, start=1):
        try:
            releases.append(_release(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(
                f"{path}: line {number} cannot be read ({error}), so what has been spent is not known; "
                "put a copy in its place"
            ) from error
    return releases


def _release(values: dict[str, Any]) -> LedgerEntry:
    clients = values.pop("clients")
    return LedgerEntry(**values, clients=None if clients is None else tuple(clients))
