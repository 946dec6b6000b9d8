"""Loss of a model and what scores are computed of, as sums over examples."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fedbatch.losses.examples import NO_LABEL
from fedbatch.models.flat import FlatModel, Loss

OfEach = Callable[[Tensor, Tensor], Tensor]
"""Outputs (n, ...) and labels (n, ...) to what is added up of each example, float64 (n, S); see `fedbatch.tasks`."""


@dataclass(frozen=True)
class ExampleSums:
    """Sums over ``count`` examples, those of the task and that of the loss; sums add over clients, means do not."""

    count: int
    sums: tuple[float, ...]
    loss_sum: float

    @property
    def loss(self) -> float:
        """Mean loss; NaN without examples."""
        return self.loss_sum / self.count if self.count else float("nan")


def example_sums(
    model: FlatModel, loss: Loss, of_each: OfEach, x: Tensor, y: Tensor, batch_size: int = 1024
) -> ExampleSums:
    """Evaluate ``model`` on inputs ``x`` (N, ...), at least one, with labels ``y`` (N, ...); see `score_sums`."""
    *sums, loss_sum = score_sums(model, loss, of_each, x, y, batch_size).tolist()
    return ExampleSums(len(y), tuple(sums), loss_sum)


def score_sums(model: FlatModel, loss: Loss, of_each: OfEach, x: Tensor, y: Tensor, batch_size: int) -> Tensor:
    """The sums of ``of_each`` and of the loss (S + 1,), ``batch_size`` examples at a time, left on their device.

    A loss that couples examples has no sum over them: that of each ``batch_size`` counts as many times as it has
    examples, so its mean depends on ``batch_size``.
    """
    sums = torch.zeros((), dtype=torch.float64, device=y.device)
    for logits, labels in predictions(model, x, y, batch_size):
        found = of_each(logits, labels).T.contiguous().sum(dim=1)  # each as if it were alone, to the last bit
        sums = sums + torch.cat([found, _loss_sum(loss, logits, labels)[None]])
    return sums


def example_scores(model: FlatModel, loss: Loss, of_each: OfEach, x: Tensor, y: Tensor) -> Tensor:
    """What is added up of each example, and its loss, (n, S + 1), by a loss that does not couple examples."""
    logits = logits_of(model, x, len(x))
    return torch.cat([of_each(logits, y), loss(logits, y, reduction="none").double()[:, None]], dim=1)


@torch.no_grad()
def predictions(model: FlatModel, x: Tensor, y: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Outputs and labels, ``batch_size`` examples at a time, in evaluation mode."""
    with model.unchanged():
        model.module.eval()
        for start in range(0, len(y), batch_size):
            inputs = model.own_inputs(x[start : start + batch_size])
            yield model(inputs), y[start : start + batch_size]


@torch.no_grad()
def logits_of(model: FlatModel, x: Tensor, batch_size: int = 1024) -> Tensor:
    """Logits (N, ..., classes) of inputs ``x`` (N, ...), ``batch_size`` examples at a time, all of them kept."""
    with model.unchanged():
        model.module.eval()
        return torch.cat([model(model.own_inputs(part)) for part in x.split(batch_size)])


def labelled_logits(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Float64 logits (n, classes) and labels (n,) of examples, or of all positions that have a label."""
    if labels.dim() == 1:
        return logits.double(), labels
    has_label = labels != NO_LABEL
    return logits[has_label].double(), labels[has_label]


def _loss_sum(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    if getattr(loss, "per_example", False):
        return loss(logits, labels, reduction="none").double().sum()
    return loss(logits, labels).double() * len(labels)
