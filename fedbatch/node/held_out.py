"""A node's sums over what its clients hold out."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from fedbatch.core.random import Ints
from fedbatch.core.transfer import to_device
from fedbatch.losses.examples import NO_LABEL
from fedbatch.metrics.evaluate import labelled_logits, logits_of
from fedbatch.metrics.statistics import STATISTICS, centred_right, nll_derivatives
from fedbatch.metrics.temperature import newton_each, slopes
from fedbatch.node.train import EVALUATE_BATCH
from fedbatch.privacy.mechanism import Mechanism
from fedbatch.privacy.plan import PrivacyPlan
from fedbatch.privacy.randomness import Floats
from fedbatch.privacy.release import PURPOSES, slope_key
from fedbatch.setup.task import Task
from fedbatch.wire.check import MessageError
from fedbatch.wire.held_out import (
    SlopePlan,
    Sums,
    SumsPlan,
    Temperatures,
)

PARTS = {"all": slice(None), "fit": slice(0, None, 2), "measure": slice(1, None, 2)}


def sums(plan: SumsPlan, task: Task) -> Sums:
    """The statistic of each client's predictions, divided by its temperature, added up."""
    if plan.statistic not in STATISTICS or plan.part not in PARTS:
        raise MessageError(f"statistic or part is not known here (got {plan.statistic!r} and {plan.part!r})")
    statistic, at = STATISTICS[plan.statistic], plan.at.double().to(task.train_x.device)
    parts = [
        statistic(logits / temperature, labels, at)
        for (logits, labels), temperature in zip(_predictions(plan, task), plan.temperatures, strict=True)
    ]
    return Sums(plan.clients, torch.stack(parts).sum(dim=0).cpu())


def temperatures(plan: SumsPlan, task: Task) -> Temperatures:
    """The temperature that suits each client's own part best, all of them sought together."""
    own = list(_predictions(plan, task))
    logits, labels = (torch.cat(parts) for parts in zip(*own, strict=True))
    owners = _owners([len(labels) for _, labels in own], logits.device)

    def derivatives(inverse: Floats) -> tuple[Floats, Floats]:
        slope, curvature = nll_derivatives(logits, labels, owners, to_device(inverse, logits.device)).cpu().numpy()
        return slope, curvature

    return Temperatures(plan.clients, newton_each(derivatives, len(own)))


def noised_slope(plan: SlopePlan, task: Task, privacy: PrivacyPlan) -> Sums:
    """The sum of clipped values, with each client's noise where the noise is the clients'.

    Raises:
        MessageError: the run has no noise for such a question.
    """
    model, mechanism, privacy = task.node_model, privacy.mechanism, privacy.in_run(plan.nonce)
    noise = privacy.question_noise(plan.statistic) if plan.statistic in PURPOSES else 0.0
    if not noise and privacy.calibration.first_noise:
        raise MessageError(f"the run has no noise for a question about {plan.statistic!r}")
    model.load(plan.params.to(model.params), model.buffers)
    clients = plan.clients.tolist()
    held_out = [task.held_out(client) for client in clients]
    total = 0.0
    for client, held, slope in zip(clients, held_out, clipped_sums(plan, task, mechanism, held_out), strict=True):
        total += slope
        if not mechanism.server_adds_noise:
            deviation = noise * plan.clip_norm * mechanism.noise_shares(1) ** 0.5
            own = task.data_digests(task.train_x, task.train_y, task.partition, client, "held out", held)
            hidden = (slope,) if mechanism.secret_file else ()  # other rounding, other noise
            key = (PURPOSES[plan.statistic], client, own, *slope_key(plan), *hidden)
            total += deviation * float(privacy.randomness.normal(1, *key))
    return Sums(plan.clients, torch.tensor([total], dtype=torch.float64))


def clipped_sums(plan: SlopePlan, task: Task, mechanism: Mechanism, held_out: Sequence[Ints]) -> list[float]:
    """The sum of each client's clipped values, from the positions of what each holds out.

    The unit that is clipped is the one that is protected: an example's value, or the mean of a client's values.
    """
    x, y = task.examples(np.concatenate(held_out))
    logits = logits_of(task.node_model, x, EVALUATE_BATCH).double()
    units = slopes(logits, y, plan.inverse) if plan.statistic == "slope" else centred_right(logits, y)
    sizes = [len(held) for held in held_out]
    owners = _owners(sizes, units.device)
    nothing = units.new_zeros(len(sizes))
    if not mechanism.clips_examples:
        units = nothing.index_add(0, owners, units) / to_device(np.maximum(sizes, 1), units.device)
        owners = torch.arange(len(sizes), device=units.device)
    clipped = units.nan_to_num().clamp(-plan.clip_norm, plan.clip_norm)
    sums: list[float] = nothing.index_add(0, owners, clipped).tolist()
    return sums


def _owners(sizes: Sequence[int], device: torch.device) -> Tensor:
    """Place of its client (n,) for each example of clients with ``sizes`` examples."""
    return to_device(np.repeat(np.arange(len(sizes)), sizes), device)


def _predictions(plan: SumsPlan, task: Task) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (n, classes) and labels (n,) of each client's part, from one pass through the model for all of them."""
    model = task.node_model
    model.load(plan.params.to(model.params), plan.buffers.to(model.buffers))
    positions = [task.held_out(int(client))[PARTS[plan.part]] for client in plan.clients]
    x, y = task.examples(np.concatenate(positions))
    logits, labels = labelled_logits(logits_of(model, x, EVALUATE_BATCH), y)
    labelled = (y != NO_LABEL).flatten(1).sum(dim=1).tolist() if y.dim() > 1 else [1] * len(y)
    ends = np.cumsum([0, *labelled])[np.cumsum([0, *map(len, positions)])]
    sizes = np.diff(ends).tolist()
    return zip(logits.split(sizes), labels.split(sizes), strict=True)
