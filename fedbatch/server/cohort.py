"""Who takes part in a round: who is there, who of them is asked, and whose answers come in time.

All of it follows from the simulated clock, the config and the seed, before anything is sent: a client whose answer
would not be taken is not computed.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from fedbatch.batch.deadline import arrivals
from fedbatch.batch.time_model import Floats
from fedbatch.clients.cohort import sample_cohort
from fedbatch.controllers.phase import Phase
from fedbatch.core.errors import ConfigError, RunFailedError
from fedbatch.core.random import Ints, key
from fedbatch.samplers import Candidates, Sample
from fedbatch.server.algorithm import bytes_sent
from fedbatch.server.server import Row, Server
from fedbatch.server.state import ServerState
from fedbatch.server.there import who_is_there

NONE: Floats = np.zeros(0)


@dataclass(frozen=True)
class Cohort:
    """The clients of a round whose answers are taken, if they come.

    Attributes:
        clients: int64 (K,) ids, ascending.
        batch_sizes: int64 (K,) examples of a step of each, at least 1.
        factors: float64 (K,) on their weights, or (0,) for none.
        start_seconds: when the round begins by the simulated clock.
        least_seconds: what it lasts at least.
        unused: clients that are asked besides, whose answers are not taken.
        scale: on the mean update: weight of the cohort over the one that is expected; 1 without factors.
        columns: further columns of the record; none where all clients are there and waited for.
        end_seconds: when the round ends by the simulated clock; None for when its slowest client is done.
        changes: further fields of the state after this round.
    """

    clients: Ints
    batch_sizes: Ints
    factors: Floats
    start_seconds: float
    least_seconds: float = 0.0
    unused: int = 0
    scale: float = 1.0
    columns: Row = field(default_factory=dict)
    end_seconds: float | None = None
    changes: dict[str, Any] = field(default_factory=dict)

    def select(self, places: Ints) -> "Cohort":
        """Some of the clients, by their places (n,), ascending."""
        factors = self.factors[places] if len(self.factors) else self.factors
        return replace(self, clients=self.clients[places], batch_sizes=self.batch_sizes[places], factors=factors)


def draw_cohort(server: Server, state: ServerState, phase: Phase) -> Cohort:
    """The cohort of the state's round.

    Raises:
        NobodyComesError: nobody will be there any more.
        RunFailedError: a sampler of one's own gives what is no cohort.
    """
    config, clock = server.task.config, state.totals.simulated_seconds
    round_ = config.draw_round(state.round)
    there, start = who_is_there(server, clock)
    count, scale = round(config.over_selection * phase.cohort_size), 1.0
    if server.sampler is None:
        sample = Sample(sample_cohort(there, config.sampling, count, config.seed, round_))
    else:
        candidates = Candidates(there, server.hosts.examples_of(there), _losses(server, state, there))
        count = min(count, len(there))
        sample = server.sampler(candidates, count, key(config.seed, "cohort", round_))
        _check(server, sample, candidates)
        scale = _scale(server, phase, sample, candidates, count)
    sizes = phase.batch_sizes(server.hosts.examples_of(sample.clients))
    cohort = Cohort(sample.clients, sizes, sample.factors, start, scale=scale).select(np.flatnonzero(sizes))
    if server.availability is None and config.deadline_seconds is None and config.over_selection == 1:
        return cohort
    return _who_answers(
        server, state, phase, cohort, {"available_clients": len(there), "waiting_seconds": start - clock}
    )


def _who_answers(server: Server, state: ServerState, phase: Phase, cohort: Cohort, columns: Row) -> Cohort:
    """The cohort without those whose answers are not taken."""
    config, clients = server.task.config, cohort.clients
    seconds = client_seconds(server, state, phase, clients)
    stays = np.ones(len(clients), dtype=bool)
    if server.availability is not None:
        stays = server.availability.is_there(clients, cohort.start_seconds + seconds, config.seed)
    wanted = phase.cohort_size if config.over_selection > 1 else None
    came = arrivals(seconds, stays, config.deadline_seconds, wanted)
    kept = cohort.select(np.flatnonzero(came.taken))
    columns |= {"late_clients": int(came.late.sum()), "gone_clients": int(came.gone.sum())}
    unused = len(clients) - len(kept.clients)
    return replace(kept, least_seconds=came.least_seconds, unused=unused, columns=columns)


def client_seconds(server: Server, state: ServerState, phase: Phase, clients: Ints) -> Floats:
    """Simulated seconds (K,) after which each client of a phase answers; a model of one's own is asked one by one."""
    sizes, seed = server.hosts.examples_of(clients), server.task.config.seed
    examples = server.task.work(phase.name).num_examples(phase.batch_sizes(sizes), sizes)
    up, down = bytes_sent(server, phase, state)
    if hasattr(server.time_model, "client_seconds"):
        return server.time_model.client_seconds(seed, clients, examples, down, up)
    alone = (slice(row, row + 1) for row in range(len(clients)))
    return np.array([server.time_model.round_seconds(seed, clients[one], examples[one], down, up) for one in alone])


def last_losses(server: Server, state: ServerState, clients: Ints, losses: Floats) -> dict[str, torch.Tensor]:
    """The change of the state after ``clients`` (K,) have told their ``losses`` (K,); none if nobody asks for them."""
    if not getattr(server.sampler, "needs_losses", False):
        return {}
    known = state.losses.clone() if len(state.losses) else torch.full((len(server.hosts.clients),), torch.nan).double()
    known[torch.from_numpy(np.searchsorted(server.hosts.clients, clients))] = torch.from_numpy(losses)
    return {"losses": known}


def check_start(server: Server, state: ServerState) -> None:
    """Refuse a run in which nobody could ever take part, before its first round.

    Raises:
        ConfigError: naming the field and the remedy.
    """
    config, clients = server.task.config, server.hosts.clients
    some = clients[server.hosts.num_examples > 0]
    for part in (server.time_model, server.sampler):
        try:
            getattr(part, "check_clients", lambda _: None)(clients)
        except ValueError as error:
            raise ConfigError(f"{error}; the run has clients 0 to {len(clients) - 1}") from error
    if server.availability is not None and server.availability.next_seconds(some, 0.0, config.seed) == float("inf"):
        raise ConfigError(
            "availability: no client with examples is ever there, so that no round could begin; let its file name "
            f"clients of 0 to {len(clients) - 1}, or set availability=always"
        )
    if config.deadline_seconds is None:
        return
    for phase in server.task.controller.phases:
        fastest = float(client_seconds(server, state, phase, some).min())
        if fastest > config.deadline_seconds:
            raise ConfigError(
                f"deadline_seconds={config.deadline_seconds:g}: nobody is done by then in phase {phase.name}, where "
                f"the fastest client takes {fastest:.4g} simulated seconds; raise it"
            )


def _check(server: Server, sample: Sample, candidates: Candidates) -> None:
    """Raise where a sample is no cohort of the candidates."""
    clients, factors, name = sample.clients, sample.factors, type(server.sampler).__name__
    if not len(clients) or not np.isin(clients, candidates.clients).all() or (np.diff(clients) <= 0).any():
        raise RunFailedError(f"sampler: {name} must give ids of candidates, ascending and each once")
    if not len(factors):
        return
    if not getattr(server.sampler, "corrects", False) or len(factors) != len(clients):
        raise RunFailedError(f"sampler: {name} gives factors; it must declare corrects = True, and give one a client")
    if not (np.isfinite(factors) & (factors > 0)).all():
        raise RunFailedError(f"sampler: {name} gives a factor that is not a positive number")


def _scale(server: Server, phase: Phase, sample: Sample, candidates: Candidates, count: int) -> float:
    """Weight of a sample with its factors over its expectation, so that sums are those of Horvitz and Thompson.

    A mean divides by the weight that happens to be there, which goes with who is drawn and makes it biased.
    """
    if not len(sample.factors):
        return 1.0
    sizes = candidates.num_examples
    weights = server.task.weights(server.task.work(phase.name).num_examples(phase.batch_sizes(sizes), sizes))
    drawn = weights[np.searchsorted(candidates.clients, sample.clients)]
    return float(drawn @ sample.factors) / (count * float(weights.mean()))


def _losses(server: Server, state: ServerState, clients: Ints) -> Floats:
    if not len(state.losses):
        return np.full(len(clients), np.nan)
    return np.asarray(state.losses.numpy()[np.searchsorted(server.hosts.clients, clients)])
