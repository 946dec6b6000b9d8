"""What all clients hold out, as a pool that answers with sums over them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fedbatch.metrics.statistics import STATISTICS
from fedbatch.privacy.plan import PrivacyPlan
from fedbatch.privacy.randomness import Floats
from fedbatch.privacy.release import PURPOSES, check_noise_is_whole, slope_key
from fedbatch.server.exchange import exchange
from fedbatch.server.plausible import check_sums, check_temperatures
from fedbatch.server.server import Server
from fedbatch.server.state import ServerState
from fedbatch.wire.held_out import (
    SlopePlan,
    Sums,
    SumsPlan,
    Temperatures,
)


@dataclass(frozen=True)
class HeldOut:
    """The held-out examples of all clients, seen by the model of ``state``; every question is one message a node.

    Attributes:
        server: the server.
        state: gives the model.
        part: "all", or the half to "fit" or to "measure" on.
        temperatures: (P,) of the clients, by position in ``server.hosts.clients``; None for 1.
    """

    server: Server
    state: ServerState
    part: str = "all"
    temperatures: Floats | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.server.task.num_classes

    def sums(self, statistic: str, at: Tensor) -> Tensor:
        """The sums of one of `STATISTICS` over the clients of all nodes that answered."""
        nothing = torch.zeros(0, self.num_classes, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
        size = len(STATISTICS[statistic](*nothing, at))
        answers = _answers(self.server, self._plans(statistic, at), size, self.state.round)
        return torch.stack([answer.sums.double() for answer in answers]).sum(dim=0)

    def own_temperatures(self) -> Floats:
        """Each client's own temperature (P,), 1 for those that did not answer."""
        found = np.ones(len(self.server.hosts.clients))
        plans = self._plans("scaled_nll", torch.ones(1, dtype=torch.float64))
        answers, _ = exchange(
            self.server.grid, plans, Temperatures, self.server.task.config, self.state.round, check_temperatures
        )
        for answer in answers:
            found[np.searchsorted(self.server.hosts.clients, answer.clients)] = answer.temperatures
        return found

    def _plans(self, statistic: str, at: Tensor) -> dict[int, SumsPlan]:
        hosts, state = self.server.hosts, self.state
        scale = np.ones(len(hosts.clients)) if self.temperatures is None else self.temperatures
        return {
            node: SumsPlan(
                params=state.params,
                buffers=state.buffers,
                clients=clients,
                temperatures=scale[np.searchsorted(hosts.clients, clients)],
                part=self.part,
                statistic=statistic,
                at=at,
            )
            for node, clients in hosts.by_node(hosts.clients).items()
        }


def slopes_of(server: Server, plans: dict[int, SlopePlan]) -> list[Sums]:
    """What the nodes answer; the release must have been charged."""
    return _answers(server, plans, 1, next(iter(plans.values())).round)


def noised_slope(
    server: Server, privacy: PrivacyPlan, plans: dict[int, SlopePlan], answers: list[Sums] | None = None
) -> float:
    """The noised sum of clipped values that ``plans`` ask for; its release must have been charged.

    Args:
        server: the server.
        privacy: the run's mechanism.
        plans: one for each node.
        answers: of the nodes; None asks for them.

    Raises:
        RunFailedError: so few clients that the noise is not whole.
    """
    plan = next(iter(plans.values()))
    answers = slopes_of(server, plans) if answers is None else answers
    answered = np.sort(np.concatenate([answer.clients for answer in answers]))
    check_noise_is_whole(privacy.mechanism, len(answered))
    slope = sum(float(answer.sums) for answer in answers)
    if privacy.mechanism.server_adds_noise:
        key = (PURPOSES[plan.statistic], "server", *slope_key(plan), *answered.tolist())
        draw = float(privacy.in_run(plan.nonce).randomness.normal(1, *key))
        slope += privacy.question_noise(plan.statistic) * plan.clip_norm * draw
    return slope


def slope_plans(
    server: Server,
    state: ServerState,
    inverse: float,
    clip_norm: float,
    attempt: int = 0,
    nonce: str = "",
    statistic: str = "slope",
) -> dict[int, SlopePlan]:
    """One plan for each node."""
    return {
        node: SlopePlan(state.params, clients, state.round, inverse, clip_norm, attempt, nonce, statistic)
        for node, clients in server.hosts.by_node(server.hosts.clients).items()
    }


def _answers(server: Server, plans: Mapping[int, SumsPlan | SlopePlan], size: int, round_: int) -> list[Sums]:
    answers, _ = exchange(server.grid, plans, Sums, server.task.config, round_, partial(check_sums, server, size))
    return answers
