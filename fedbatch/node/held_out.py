"""A node's sums over what its clients hold out."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedbatch.core.random import Ints
from fedbatch.metrics.evaluate import labelled_logits, logits_of
from fedbatch.metrics.statistics import STATISTICS, scaled_nll
from fedbatch.metrics.temperature import newton, slopes
from fedbatch.node.train import EVALUATE_BATCH
from fedbatch.privacy.plan import PrivacyPlan
from fedbatch.privacy.release import slope_key
from fedbatch.setup.task import Task
from fedbatch.wire.check import MessageError
from fedbatch.wire.messages import SlopePlan, Sums, SumsPlan, Temperatures

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
    """The temperature that suits each client's own part best."""

    def own(logits: Tensor, labels: Tensor) -> float:
        return newton(lambda a: tuple(scaled_nll(logits, labels, logits.new_tensor([a])).tolist()))

    return Temperatures(plan.clients, np.array([own(*predictions) for predictions in _predictions(plan, task)]))


def noised_slope(plan: SlopePlan, task: Task, privacy: PrivacyPlan) -> Sums:
    """The sum of clipped slopes of -ln p at a temperature, with each client's noise where the noise is the clients'.

    The unit that is clipped is the one that is protected: an example's slope, or the mean of a client's slopes.
    """
    model, mechanism, privacy = task.node_model, privacy.mechanism, privacy.in_run(plan.nonce)
    model.load(plan.params.to(model.params), model.buffers)
    total = 0.0
    for client in plan.clients.tolist():
        held = task.held_out(client)
        x, y = _examples(task, held)
        units = slopes(logits_of(model, x, EVALUATE_BATCH).double(), y, plan.inverse)
        if not mechanism.clips_examples:
            units = units.mean(dim=0, keepdim=True) if len(units) else units
        slope = float(units.nan_to_num().clamp(-plan.clip_norm, plan.clip_norm).sum())
        total += slope
        if not mechanism.server_adds_noise:
            deviation = privacy.temperature_noise * plan.clip_norm * mechanism.noise_shares(1) ** 0.5
            own = task.data_digests(task.train_x, task.train_y, task.partition, client, "held out", held)
            hidden = (slope,) if mechanism.secret_file else ()  # other rounding, other noise
            key = ("temperature", client, own, *slope_key(plan), *hidden)
            total += deviation * float(privacy.randomness.normal(1, *key))
    return Sums(plan.clients, torch.tensor([total], dtype=torch.float64))


def _predictions(plan: SumsPlan, task: Task) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (n, classes) and labels (n,) of each client's part, from one pass through the model for all of them."""
    model = task.node_model
    model.load(plan.params.to(model.params), plan.buffers.to(model.buffers))
    positions = [task.held_out(int(client))[PARTS[plan.part]] for client in plan.clients]
    x, y = _examples(task, np.concatenate(positions))
    logits = logits_of(model, x, EVALUATE_BATCH)
    sizes = [len(p) for p in positions]
    return (labelled_logits(z, labels) for z, labels in zip(logits.split(sizes), y.split(sizes), strict=True))


def _examples(task: Task, positions: Ints) -> tuple[Any, Tensor]:
    index = torch.from_numpy(positions).to(task.train_x.device)
    return task.train_x[index], task.train_y[index]
