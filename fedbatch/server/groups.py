"""Rounds whose cohort is asked group by group, which measure the gain curve and the noise of other geometries."""

from collections.abc import Sequence

import numpy as np
import torch

from fedbatch.aggregation.groups import group_sums
from fedbatch.aggregation.sums import combine
from fedbatch.batch.gain import GroupSums
from fedbatch.controllers.phase import Phase
from fedbatch.core.random import Ints, generator
from fedbatch.server.server import Server
from fedbatch.server.state import ServerState
from fedbatch.wire.messages import Contribution


def dealt(server: Server, state: ServerState, phase: Phase, cohort: Ints) -> list[Ints]:
    """Places in the cohort, group by group in random order; one group of all in a round that does not measure.

    A phase begins with a round that does not, in which ``executor=auto`` looks at the whole cohort.
    """
    config = server.task.config
    count, every = config.noise_scale.groups, config.noise_scale.every
    known = state.executor(phase.name, config.executor) != "auto"
    everyone = np.arange(len(cohort))
    if not count or not known or (state.round + 1) % every or len(cohort) < count:
        return [everyone]
    order = generator(config.seed, "groups", state.round).permutation(everyone)
    return [np.sort(places) for places in np.array_split(order, count)]


def measured_groups(server: Server, found: Sequence[Sequence[Contribution]], unit: str) -> GroupSums:
    """What the groups say of the step that the server's optimizer would take now.

    Args:
        server: has the optimizer.
        found: the answers of each group, from at least one client. Those who are missing make a group smaller.
        unit: "examples" or "clients", what batches are counted in.
    """
    optimizer, layers = server.optimizer, server.task.config.noise_scale.layers
    model = optimizer.model
    groups = [combine(answers) for answers in found]
    sizes = np.array([g.num_examples.sum() if unit == "examples" else len(g.clients) for g in groups], np.float64)
    means = torch.stack([group.mean_update for group in groups]).double()
    size = 1 / float((1 / sizes).mean())  # the noise of a group goes by one over its batch
    return group_sums(means, size, optimizer.direction(), model.split, model.layer_sizes if layers else [])
