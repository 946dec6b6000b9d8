"""What losses share: an example's own loss from that of its labels, and what a batch's predictions amount to."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

NO_LABEL = -100
"""What torch's cross-entropy leaves out."""

Reduction = Literal["mean", "none", "sum"]


def by_example(each: Tensor, labels: Tensor, reduction: Reduction) -> Tensor:
    """Reduce the losses ``each`` of ``labels``, (batch,) or (batch, positions), to a scalar, or (batch,) with "none".

    With a label a position an example is a sequence, and its loss is the mean over the positions whose label is not
    -100; 0 where there is none.
    """
    told = labels != NO_LABEL
    own = torch.where(told, each, torch.zeros_like(each))
    if labels.dim() > 1:
        own = own.sum(dim=1) / told.sum(dim=1).clamp(min=1)
    return own if reduction == "none" else own.mean() if reduction == "mean" else own.sum()


def log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of ``labels`` (...) under ``logits`` (..., classes), in nats; arbitrary where a label is -100."""
    return logits.log_softmax(dim=-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)


class Predictions(NamedTuple):
    """What a batch-coupled loss sees of n labels: every position of a sequence counts as one."""

    probs: Tensor
    """(n, classes), the softmax."""
    confidence: Tensor
    """(n,) in [1/classes, 1], the largest probability; tied classes share its gradient."""
    correct: Tensor
    """(n,) 1 where the (first) most probable class is the label, else 0."""


def predictions(logits: Tensor, labels: Tensor) -> Predictions:
    """Predictions of ``logits`` (..., classes) for ``labels`` (...); labels of -100 are left out."""
    if labels.dim() > 1:
        told = labels != NO_LABEL
        logits, labels = logits[told], labels[told]
    probs = logits.softmax(dim=-1)
    return Predictions(probs, probs.amax(dim=-1), (logits.argmax(dim=-1) == labels).to(probs.dtype))
