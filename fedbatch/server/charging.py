"""Charging a release before it is asked for, and never letting two things out at one price."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from fedbatch.privacy import attempts, ledger
from fedbatch.privacy.ledger import AGAIN, Ledger, LedgerEntry
from fedbatch.privacy.nonce import nonce_of
from fedbatch.privacy.plan import PrivacyPlan
from fedbatch.results.record import ranges
from fedbatch.server.server import Server
from fedbatch.server.state import ServerState

log = logging.getLogger("fedbatch")
Answer = TypeVar("Answer")
More = TypeVar("More")


class BudgetSpent(Exception):
    """The next release would pass the privacy budget; the run is complete without it."""


def run_nonce(server: Server, privacy: PrivacyPlan, state: ServerState) -> str:
    """The nonce of the run, which begins with its first release."""
    return nonce_of(privacy.mechanism, server.folder, begun=bool(state.ledger.releases))


def how_computed(server: Server, nonce: str) -> str:
    """All that may change on resume and with it the rounding, or the draws, of a round that is done again."""
    config, device = server.task.config, server.optimizer.model.params.device.type
    parts = f"executor={config.executor} nodes={config.nodes} device={device} threads={config.threads}"
    if config.memory_bytes is not None:
        parts += f" memory_bytes={config.memory_bytes:g}"
    return f"{parts} nonce={nonce[:8]}" if nonce else parts


def cost_of_resuming(server: Server, privacy: PrivacyPlan, state: ServerState) -> str:
    """What it costs in all that rounds which a crash undid are done again on other terms; empty if nothing."""
    now = how_computed(server, run_nonce(server, privacy, state))
    undone = {(r.round, r.params): r for r in state.ledger.releases if r.round >= state.round and r.question != AGAIN}
    once = privacy.mechanism.masks
    other = [r for r in undone.values() if once or r.how != now]
    if not other:
        return ""
    again = state.ledger
    for release in other:
        for entry in privacy.charges(again, replace(release.again(), how=now)):
            again = again.charge(entry)
    target = privacy.mechanism.target_epsilon
    budget = f" of {target:g}, at which the run ends" if target is not None else ""
    cost = f"epsilon {privacy.epsilon(state.ledger):.4g} becomes {privacy.epsilon(again):.4g}{budget}"
    rounds = ranges([r.round for r in other])
    if once:
        return f"resume: the masked sums of rounds {rounds} are drawn and charged again: {cost}"
    return (
        f"resume: rounds {rounds} were released before with {other[-1].how}; with {now} they are charged again: "
        f"{cost}. As they were they cost nothing"
    )


def released_once(
    server: Server,
    privacy: PrivacyPlan,
    state: ServerState,
    due: LedgerEntry,
    ask: Callable[[LedgerEntry], tuple[list[Answer], More]],
) -> tuple[Ledger, LedgerEntry, list[Answer], More]:
    """The answers to a release that is charged before it is asked for, and that is never two things at one price.

    One that was made before is asked for with the draws it had. Where something else comes back than then, that is not
    released: the next attempt is charged, with draws of its own. Where each reply is a release, what came back was seen
    nevertheless, and is charged too.

    Args:
        server: its folder has the ledger.
        privacy: the run's mechanism.
        state: has the ledger so far.
        due: what is charged.
        ask: gives the answers to an attempt, and what else is known of it.

    Returns:
        The ledger with it, the attempt, its answers, and what else ``ask`` gave.

    Raises:
        BudgetSpent: nothing was sent.
    """
    planned, due = due, state.ledger.attempt(due)
    if privacy.mechanism.masks and due in state.ledger.releases:
        due = due.again()  # a sum over other nodes with the same noise would tell what sets the two apart
    while True:
        is_replay = due in state.ledger.releases
        charged = charge(server, privacy, state, due)
        answers, more = ask(due)
        found = attempts.digests(privacy, due, answers)
        if attempts.settle(server.folder / attempts.FILE, due, found, is_replay):
            return charged, due, answers, more
        if not privacy.mechanism.releases_sums:
            due = seen_twice(due)
            charged = charged.charge(due)
            ledger.write(server.folder / ledger.FILE, due)
        state, due = replace(state, ledger=charged), replace(planned, attempt=due.attempt + 1)


def seen_twice(due: LedgerEntry) -> LedgerEntry:
    """The charge for other replies to an attempt than it had before: its samples were seen twice, with noise for each.

    Two releases of one sample with noise s are one with noise s / sqrt 2.
    """
    return replace(due.again(), noise_multiplier=due.noise_multiplier / 2**0.5)


def charge(server: Server, privacy: PrivacyPlan, state: ServerState, due: LedgerEntry) -> Ledger:
    """The ledger with a release that is about to be made, on disk before it is."""
    charged, entries = state.ledger, privacy.charges(state.ledger, due)
    for entry in entries:
        charged = charged.charge(entry)
    target = privacy.mechanism.target_epsilon
    if charged is not state.ledger and (before := state.ledger.done_before(due)):
        log.warning("%s", charged_again(privacy, state.ledger, charged, before, due))
    if not privacy.allows(charged):
        raise BudgetSpent(
            f"stopped after round {state.round}: the next would pass the privacy budget epsilon {target:g}"
        )
    if charged is not state.ledger:
        for entry in entries:
            ledger.write(server.folder / ledger.FILE, entry)
    return charged


def charged_again(privacy: PrivacyPlan, spent: Ledger, charged: Ledger, before: LedgerEntry, due: LedgerEntry) -> str:
    """What it costs that a round is not done again just as it was, and how it would cost nothing."""
    target = privacy.mechanism.target_epsilon
    budget = f" of {target:g}" if target is not None else ""
    why = "other parameters or answers"
    if privacy.mechanism.masks:
        why = "other noise, because a masked sum is opened once"
    elif before.how != due.how:
        why = f"{due.how} and no longer {before.how}, with which it would cost nothing"
    return (
        f"round {due.round} was released before and is charged again, for it is done with {why}: epsilon "
        f"{privacy.epsilon(spent):.4g} becomes {privacy.epsilon(charged):.4g}{budget}"
    )
