"""What an attacker reads in each release of a run with canaries, and what it says of each canary."""

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from torch import Tensor

from fedbatch import client_app, server_app
from fedbatch.auditing import canaries
from fedbatch.controllers.phase import Phase
from fedbatch.core.errors import ConfigError
from fedbatch.core.random import Ints
from fedbatch.privacy import one_run
from fedbatch.privacy.ledger import Ledger
from fedbatch.privacy.one_run import Floats
from fedbatch.privacy.plan import PrivacyPlan
from fedbatch.privacy.terms import Bools
from fedbatch.runtime.local import LocalGrid
from fedbatch.server.rounds import run_rounds
from fedbatch.server.server import Row
from fedbatch.setup.task import Task


def attacked(loaded: Task) -> tuple[Floats, Ledger]:
    """Log likelihood ratio of each canary (m,) over all releases of a run, and what the run was charged."""
    privacy = loaded.privacy
    assert privacy is not None
    grid = LocalGrid(client_app.app, 1, {"config": loaded.config.to_json()})
    server = server_app.new_server(loaded, grid)
    state = server_app.start(server)
    owners, readings = _owners(loaded), list[Reading]()
    before, strategy = state.params.clone(), state.noise_history.coefficients
    for after, row in run_rounds(server, state):
        phase = replace(loaded.phase(row["phase"]), cohort_size=row["cohort_size"])
        clients = _clients(privacy, list(after.ledger.releases)[-1].clients)
        values, noise, scale = read(loaded, privacy, phase, (before - after.params) / row["lr"], row, clients)
        seen = _may_take_part(loaded, privacy, row["round"], owners, clients)
        readings.append(Reading(values, noise, scale, privacy.terms.draw_rate(phase), privacy.steps(phase), seen))
        before, state = after.params.clone(), after
    if not readings:
        raise ConfigError("audit: the budget does not pay for a single round; raise privacy.target_epsilon")
    return evidence(readings, np.array(strategy)), state.ledger


@dataclass(frozen=True)
class Reading:
    """What an attacker reads in one release.

    Attributes:
        values: (m,), along each canary, in contributions of one unit.
        noise: (m,), where no canary is, in the same.
        scale: of the round's noise, by which it is divided where rounds are put together.
        sample_rate: q of those that may take part.
        steps: how many releases the round's sum holds.
        seen: (m,), who may take part.
    """

    values: Floats
    noise: Floats
    scale: float
    sample_rate: float
    steps: int
    seen: Bools


def evidence(readings: list[Reading], strategy: Floats) -> Floats:
    """Log likelihood ratio of each canary (m,) over all rounds.

    Noise that is correlated by a banded strategy (b,) is made white first; then a canary that takes part in a round is
    in the next b rows, and all are added up with its weights there. How strong the noise is, is read where no canary
    is, and not taken from the claim.
    """
    total = np.zeros(len(readings[0].values))
    scaled = [np.stack([reading.values, reading.noise]) / reading.scale for reading in readings]
    rows = [sum(c * scaled[t - j] for j, c in enumerate(strategy) if j <= t) for t in range(len(scaled))]
    for t, reading in enumerate(readings):
        weights = strategy[: len(rows) - t]
        matched = sum(c * rows[t + j] for j, c in enumerate(weights)) * reading.scale / float(weights @ weights)
        values, noise = np.asarray(matched)
        deviation = float(noise.std()) / reading.steps**0.5
        found = one_run.log_likelihood_ratio(values, reading.sample_rate, deviation, reading.steps)
        total[reading.seen] += found[reading.seen]
    return total


def read(
    loaded: Task, privacy: PrivacyPlan, phase: Phase, update: Tensor, row: Row, clients: Ints | None
) -> tuple[Floats, Floats, float]:
    """Of one round's mean update (d,): values (m,) along canaries, noise (m,) beside them, and its scale.

    Values are in contributions of one unit, the scale is that of the accounted noise.
    """
    work = loaded.work(phase.name)
    by_steps = privacy.mechanism.clips_examples and not work.is_gradient
    contribution = row["clip_norm"] * (cast(Any, work).lr if by_steps else 1.0) / privacy.terms.batch(phase, clients)
    own, empty = (values.numpy() / contribution for values in canaries.read(update))
    return own, empty, privacy.update_noise(phase)


def _clients(privacy: PrivacyPlan, charged: tuple[int, ...] | None) -> Ints | None:
    """The clients of a round, if they are public: those charged, unless the accounts are groups."""
    return None if charged is None or privacy.terms.bands > 1 else np.array(charged, dtype=np.int64)


def _may_take_part(loaded: Task, privacy: PrivacyPlan, round_: int, owners: Ints, clients: Ints | None) -> Bools:
    """Which canaries (m,) may be in a round."""
    terms = privacy.terms
    if not privacy.mechanism.clips_examples:
        return terms.in_group(round_, len(owners))[owners]
    seen = np.zeros(len(owners), dtype=bool)
    for client in np.unique(owners) if clients is None else clients:
        size = int(terms.sizes[client])
        seen[loaded.partition.lookup(np.full(size, client), np.arange(size))] = terms.in_group(
            round_, size, int(client)
        )
    return seen


def _owners(loaded: Task) -> Ints:
    """The client of each example (n,)."""
    owners, clients = np.zeros(len(loaded.train_y), np.int64), np.arange(len(loaded.partition), dtype=np.int64)
    sizes = loaded.partition.sizes(clients)
    for client, size in zip(clients, sizes, strict=True):
        owners[loaded.partition.lookup(np.full(size, client), np.arange(size))] = client
    return owners
