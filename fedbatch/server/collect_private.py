"""A round's client work under differential privacy: charge, send, add up, release, measure from what is released."""

from functools import partial
from typing import Any

import numpy as np

from fedbatch.aggregation.sums import Sum
from fedbatch.clients.cohort import sample_cohort
from fedbatch.controllers.phase import Phase
from fedbatch.core.random import Ints
from fedbatch.privacy.ledger import LedgerEntry
from fedbatch.privacy.plan import PrivacyPlan
from fedbatch.privacy.randomness import fingerprint
from fedbatch.privacy.release import NoisedMean, release
from fedbatch.server.charging import how_computed, released_once, run_nonce
from fedbatch.server.exchange import exchange
from fedbatch.server.masked import open_sum
from fedbatch.server.measure import Measured
from fedbatch.server.plausible import check_private
from fedbatch.server.server import Collected, Server
from fedbatch.server.session import Asker
from fedbatch.server.state import ServerState
from fedbatch.server.stopwatch import Stopwatch
from fedbatch.wire.messages import PrivateContribution, PrivatePlan

NOBODY = np.zeros(0, np.int64)


def collect_private(
    server: Server, privacy: PrivacyPlan, state: ServerState, phase: Phase, clock: Stopwatch
) -> Collected:
    """The noised mean update of the round's cohort, charged before anything is sent.

    Raises:
        BudgetSpent: nothing was sent, the state is as it was.
        RunFailedError: too few contributions for the sum to carry its noise.
    """
    nonce = run_nonce(server, privacy, state)
    privacy, params = privacy.in_run(nonce), fingerprint(state.params)
    params += state.noise_history.name(privacy.randomness)
    named = public_cohort(server, privacy, phase, state.round)

    def ask(due: LedgerEntry) -> tuple[list[PrivateContribution], tuple[Ints, dict[int, str]]]:
        cohort = draw_cohort(server, privacy, phase, due) if named is None else named
        plans = make_plans(server, state, phase, cohort, due.attempt, nonce)
        clock.lap("plan_seconds")
        answers, rejected = collected(server, privacy, phase, plans, secret=named is None)
        clock.lap("client_seconds")
        return answers, (cohort, rejected)

    how = how_computed(server, nonce)
    due = privacy.release(phase, state.round, params, NOBODY if named is None else named, how)
    charged, due, answers, (cohort, rejected) = released_once(server, privacy, state, due, ask)
    update, extras = Sum(state.params), np.zeros(privacy.num_extras(phase))
    for answer in answers:
        update.add(answer.update_sum.to(state.params.device), 1.0)
        extras = extras + answer.extra_sums.double().numpy()
    answered = np.sort(np.concatenate([cohort[:0], *(a.clients for a in answers)]))
    gradient = server.task.work(phase.name).is_gradient
    key = (state.round, params, due.attempt)
    sums = update.total, extras
    released = release(privacy, phase, state.clip_norm, sums, answered, key, gradient, state.noise_history)
    clock.lap("aggregate_seconds")
    # Of a secret cohort, neither what ran nor how many answers were missing: it tells whether anybody was drawn.
    executor = answers[0].executor if answers and named is not None else ""
    seen, num_examples = public_work(server, privacy, phase, state.round, cohort)
    return Collected(
        update=released.mean.to(state.params.dtype),
        buffers=state.buffers,
        clients=seen,
        num_examples=num_examples,
        measured=measured(privacy, released),
        executor=executor,
        columns={
            "cohort_size": len(seen),
            "global_batch": int(num_examples.sum()),
            "train_loss": float("nan"),
            "mean_update_norm": float(released.mean.norm()),
            "mean_cosine": float("nan"),
            "rejected_replies": float("nan") if named is None else len(rejected),
            "epsilon_rdp": privacy.rdp_reading(charged),
            "noise_multiplier": privacy.noise_multiplier(phase),
            "clip_norm": state.clip_norm,
            "gradient_snr": released.snr,
            "executor": executor,
        },
        changes={"ledger": charged, "clip_norm": released.next_clip_norm, "noise_history": released.history},
    )


def collected(
    server: Server, privacy: PrivacyPlan, phase: Phase, plans: dict[int, PrivatePlan], secret: bool
) -> tuple[list[PrivateContribution], dict[int, str]]:
    """The answers to a round's plans, or their sum alone where it is masked, and the reason for each left-out node."""
    check, config = partial(check_private, server, privacy, phase), server.task.config
    lattice, round_ = privacy.mechanism.lattice, next(iter(plans.values())).round if plans else 0
    if not (privacy.mechanism.masks and lattice and plans):
        return exchange(server.grid, plans, PrivateContribution, config, round_, check, secret)
    asker = Asker(server.grid, plans, config.round_timeout_seconds, config.min_clients)
    opened = open_sum(asker, plans, lattice.bits, privacy.num_extras(phase), privacy.mechanism.fewest_clients, check)
    return [opened], asker.rejected


def public_cohort(server: Server, privacy: PrivacyPlan, phase: Phase, round_: int) -> Ints | None:
    """Clients of the round, drawn from the public seed; None at client level, where who takes part is a secret."""
    if not privacy.mechanism.clips_examples:
        return None
    config = server.task.config
    cohort = sample_cohort(server.hosts.clients, config.sampling, phase.cohort_size, config.seed, round_)
    return cohort[privacy.terms.sizes[cohort] > 0]


def draw_cohort(server: Server, privacy: PrivacyPlan, phase: Phase, due: LedgerEntry) -> Ints:
    """Clients of a round at client level, by a keyed Poisson draw among those of its group."""
    clients = server.hosts.clients
    draws = privacy.randomness.uniform(len(clients), "cohort", due.round, due.params, due.attempt)
    group = privacy.terms.in_group(due.round, len(clients))
    return clients[group & (draws < privacy.terms.draw_rate(phase))]


def make_plans(
    server: Server, state: ServerState, phase: Phase, cohort: Ints, attempt: int, nonce: str
) -> dict[int, PrivatePlan]:
    """One plan for each node that hosts a client of the cohort."""
    return {
        node: PrivatePlan(
            params=state.params,
            clients=clients,
            round=state.round,
            phase=phase.name,
            cohort_size=phase.cohort_size,
            clip_norm=state.clip_norm,
            executor=state.executor(phase.name, server.task.config.executor),
            attempt=attempt,
            nonce=nonce,
        )
        for node, clients in server.hosts.by_node(cohort).items()
    }


def public_work(server: Server, privacy: PrivacyPlan, phase: Phase, round_: int, cohort: Ints) -> tuple[Ints, Ints]:
    """Clients and numbers of examples for costs and simulated time, which tell nothing about who took part.

    At client level they are those of another cohort, of the expected size and drawn from the public seed.
    """
    sizes = server.hosts.num_examples
    if privacy.mechanism.clips_examples:
        return cohort, np.rint(sizes[cohort] * privacy.terms.sample_rate(phase)).astype(np.int64)
    seen = sample_cohort(server.hosts.clients, "uniform", phase.cohort_size, server.task.config.seed, round_)
    return seen, phase.batch_sizes(sizes[seen])


def measured(privacy: PrivacyPlan, released: NoisedMean) -> Measured:
    """The estimates, with the noise that a larger batch would also have to drown."""
    unit, energy = f"{privacy.mechanism.unit}s", released.noise.energy
    values: dict[str, Any] = {"size": released.batch, "unit": unit, "noise": released.estimate, "drift": None}
    if privacy.mechanism.server_adds_noise or not released.batch:
        return Measured(**values, fixed_noise=energy)
    return Measured(**values, noise_per_unit=energy / released.batch)  # every client brings its own
