"""Accuracy on what clients hold out, with noise, charged before it is asked for: what a private run may say of it."""

import logging
import math

import numpy as np

from fedbatch.privacy.ledger import Ledger, LedgerEntry
from fedbatch.privacy.plan import PrivacyPlan
from fedbatch.privacy.release import accuracy_name
from fedbatch.server.charging import BudgetSpent, how_computed, released_once, run_nonce
from fedbatch.server.held_out import noised_slope, slope_plans, slopes_of
from fedbatch.server.server import Row, Server
from fedbatch.server.state import ServerState
from fedbatch.wire.held_out import SlopePlan, Sums

log = logging.getLogger("fedbatch")
HALF = 0.5
"""What is right adds a half, what is wrong takes it away."""


def noised_accuracy(server: Server, privacy: PrivacyPlan, state: ServerState) -> tuple[Row, Ledger]:
    """Columns of a round that is evaluated, and the ledger with what they cost; no columns without noise for them.

    The accuracy is the mean over examples, or over clients where these are protected. It may lie outside 0 .. 1: noise
    is not taken back.
    """
    if privacy.mechanism.accuracy_noise is None:
        return {}, state.ledger
    nonce = run_nonce(server, privacy, state)

    def ask(due: LedgerEntry) -> tuple[list[Sums], dict[int, SlopePlan]]:
        plans = slope_plans(server, state, 1.0, HALF, due.attempt, nonce, "correct")
        return slopes_of(server, plans), plans

    due = privacy.accuracy_release(state.round, accuracy_name(state.params), how_computed(server, nonce))
    try:
        ledger, _, answers, plans = released_once(server, privacy, state, due, ask)
    except BudgetSpent as reason:  # after rounds that were charged twice
        log.warning("privacy.accuracy_noise: %s; the accuracy is not released", reason)
        return {"noised_accuracy": math.nan, "noised_accuracy_se": math.nan}, state.ledger
    answered = np.concatenate([answer.clients for answer in answers])
    units = held_out_units(server, privacy, answered)
    accuracy = HALF + noised_slope(server, privacy, plans, answers) / units
    shares = privacy.mechanism.noise_shares(len(answered))
    noise = privacy.accuracy_noise * HALF * shares**0.5 / units
    sampling = HALF / units**0.5  # at most
    return {"noised_accuracy": accuracy, "noised_accuracy_se": math.hypot(noise, sampling)}, ledger


def held_out_units(server: Server, privacy: PrivacyPlan, clients: np.ndarray) -> int:
    """How many examples these clients hold out, or how many of them hold any out: public, as sizes are."""
    partition = server.task.partition
    sizes = partition.whole.sizes(clients) - partition.sizes(clients)
    return max(1, int(sizes.sum() if privacy.mechanism.clips_examples else (sizes > 0).sum()))
