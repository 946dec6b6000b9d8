"""Classification: one class an example, or one a position of a sequence; scored by the share that is right."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbatch.core.scores import Score
from fedbatch.data.label_rules import CLASSES, LabelRule
from fedbatch.losses.cross_entropy import CrossEntropy
from fedbatch.losses.examples import NO_LABEL
from fedbatch.tasks.protocol import Floats, ratio, with_known

ACCURACY = Score("accuracy", "share of the server's test split that is right", "higher", 0.0, 1.0)


@dataclass(frozen=True)
class Classification:
    """Labels (N,) of classes, or (N, T) with -100 where a position has none; logits (N, classes) or (N, T, classes).

    Of an example with a label a position, the share of its positions counts that are right.
    """

    outputs: int = field(init=False, default=0)
    has_positions: bool = field(init=False, default=False)
    at: Floats = field(init=False, default_factory=lambda: np.zeros(0))

    rule: LabelRule = field(init=False, default=CLASSES)
    scores: tuple[Score, ...] = field(init=False, default=(ACCURACY,))
    score: str = field(init=False, default="accuracy")
    class_axis: int | None = field(init=False, default=-1)

    def fitted(self, labels: npt.NDArray[Any], num_classes: int | None) -> "Classification":
        """Of so many classes."""
        return with_known(self, outputs=num_classes, has_positions=labels.ndim > 1)

    def targets(self, labels: npt.NDArray[Any]) -> Tensor:
        """The labels as they are."""
        return torch.from_numpy(labels)

    def loss(self) -> CrossEntropy:
        """Cross-entropy."""
        return CrossEntropy()

    def output_shape(self, targets: tuple[int, ...]) -> tuple[int, ...]:
        """Classes along a last axis."""
        return (*targets, self.outputs)

    def trial(self) -> tuple[Tensor, Tensor] | None:
        """Every class at least twice; none for sequences, whose means are over positions."""
        if self.has_positions:
            return None
        labels = torch.arange(self.outputs).repeat(2)[: max(2 * self.outputs, 4)]
        source = torch.Generator().manual_seed(0)
        return torch.randn(len(labels), self.outputs, generator=source, dtype=torch.float64), labels

    def readable(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities with classes along axis 1, and labels."""
        return outputs.softmax(dim=-1).movedim(-1, 1), targets

    def sums(self, outputs: Tensor, targets: Tensor, at: Tensor) -> Tensor:
        """1 for an example that is right, or its share of right positions, (n, 1)."""
        return share_right(outputs, targets)[:, None]

    def bounds(self) -> Floats:
        """Nobody has more right than examples."""
        return np.array([[0.0], [1.0]])

    def columns(self, counts: Floats, sums: Floats, at: Floats) -> Mapping[str, Floats]:
        """The accuracy."""
        return {"accuracy": ratio(sums[..., 0], counts)}

    def confusion(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Examples, or positions with a label, (C, C) by class and by predicted class."""
        return pairs(outputs.argmax(dim=-1), targets, outputs.shape[-1])

    def facts(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}


def pairs(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """How often each class (rows) was taken for each class (columns), (C, C), where there is a label."""
    told = labels != NO_LABEL
    return torch.bincount(labels[told] * classes + predicted[told], minlength=classes**2).view(classes, classes)


def share_right(logits: Tensor, labels: Tensor) -> Tensor:
    """1 or 0 for each example (N,), or the share of those of its positions that have a label."""
    right = (logits.argmax(dim=-1) == labels).double()
    return right if labels.dim() == 1 else right.sum(dim=1) / (labels != NO_LABEL).sum(dim=1).clamp(min=1)
