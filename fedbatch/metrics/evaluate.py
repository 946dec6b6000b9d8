"""Loss and accuracy of a model, as sums over examples."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fedbatch.losses.examples import NO_LABEL
from fedbatch.models.flat import FlatModel, Loss


@dataclass(frozen=True)
class ExampleSums:
    """Sums over ``count`` examples; sums add over clients where means do not.

    Of an example with a label a position, ``correct`` is the share of its positions that are right.
    """

    count: int
    correct: float
    loss_sum: float

    @property
    def accuracy(self) -> float:
        """Fraction of examples classified right, in [0, 1]; NaN without examples."""
        return self.correct / self.count if self.count else float("nan")

    @property
    def loss(self) -> float:
        """Mean loss; NaN without examples."""
        return self.loss_sum / self.count if self.count else float("nan")


def example_sums(model: FlatModel, loss: Loss, x: Tensor, y: Tensor, batch_size: int = 1024) -> ExampleSums:
    """Evaluate ``model`` on inputs ``x`` (N, ...), labels ``y`` (N,) or (N, T); see `score_sums`."""
    return ExampleSums(len(y), *score_sums(model, loss, x, y, batch_size).tolist())


def score_sums(model: FlatModel, loss: Loss, x: Tensor, y: Tensor, batch_size: int) -> Tensor:
    """``correct`` and ``loss_sum`` (2,) of examples, ``batch_size`` at a time, left on their device.

    A loss that couples examples has no sum over them: that of each ``batch_size`` counts as many times as it has
    examples, so its mean depends on ``batch_size``.
    """
    sums = torch.zeros(2, dtype=torch.float64, device=y.device)
    for logits, labels in _predictions(model, x, y, batch_size):
        sums += torch.stack([_share_right(logits.argmax(dim=-1), labels).sum(), _loss_sum(loss, logits, labels)])
    return sums


def example_scores(model: FlatModel, loss: Loss, x: Tensor, y: Tensor) -> Tensor:
    """The share that is right and the loss of each example (n, 2), by a loss that does not couple them."""
    logits = logits_of(model, x, len(x))
    return torch.stack([_share_right(logits.argmax(dim=-1), y), loss(logits, y, reduction="none").double()], dim=1)


@torch.no_grad()
def _predictions(model: FlatModel, x: Tensor, y: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and labels, ``batch_size`` examples at a time."""
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


def _share_right(predicted: Tensor, labels: Tensor) -> Tensor:
    """1 or 0 for each example (N,), or the share of those of its positions that have a label."""
    right = (predicted == labels).double()
    return right if labels.dim() == 1 else right.sum(dim=1) / (labels != NO_LABEL).sum(dim=1).clamp(min=1)
