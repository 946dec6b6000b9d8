"""A class for each pixel of an image: mean intersection over union, from counts of pixels that add up."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from fedbatch.core.scores import Score
from fedbatch.data.check_labels import NO_LABEL
from fedbatch.data.label_rules import LabelRule, Pixels
from fedbatch.losses.pixels import PixelCrossEntropy
from fedbatch.tasks.classification import pairs
from fedbatch.tasks.protocol import Floats, ratio, with_known

MEAN_IOU = Score(
    "mean_iou", "pixels that are of a class and said to be, over those of either, mean over classes", "higher", 0, 1
)
PIXEL_ACCURACY = Score("pixel_accuracy", "share of the labelled pixels that is right", "higher", 0, 1)


@dataclass(frozen=True)
class Segmentation:
    """Labels (N, H, W) of classes; logits (N, classes, H, W), as torch has them.

    A class that is neither in the labels nor predicted is left out of the mean.

    Args:
        ignore_index: label of a pixel without a class, which is neither learnt nor scored.
    """

    ignore_index: int = NO_LABEL

    outputs: int = field(init=False, default=0)
    at: Floats = field(init=False, default_factory=lambda: np.zeros(0))
    scores: tuple[Score, ...] = field(init=False, default=(MEAN_IOU, PIXEL_ACCURACY))
    score: str = field(init=False, default="mean_iou")
    class_axis: int | None = field(init=False, default=1)

    @property
    def rule(self) -> LabelRule:
        """Classes of pixels."""
        return Pixels(self.ignore_index)

    def fitted(self, labels: npt.NDArray[Any], num_classes: int | None) -> "Segmentation":
        """Of so many classes."""
        return with_known(self, outputs=num_classes)

    def targets(self, labels: npt.NDArray[Any]) -> Tensor:
        """The labels as they are, -100 where there is none."""
        return torch.from_numpy(labels)

    def loss(self) -> PixelCrossEntropy:
        """Cross-entropy, mean over the pixels of an image."""
        return PixelCrossEntropy()

    def output_shape(self, targets: tuple[int, ...]) -> tuple[int, ...]:
        """Classes along axis 1."""
        return (targets[0], self.outputs, *targets[1:])

    def trial(self) -> tuple[Tensor, Tensor] | None:
        """None: torch's means are over the pixels of a batch, however they lie in images."""
        return None

    def readable(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities with classes along axis 1, and labels."""
        return outputs.softmax(dim=1), targets

    def sums(self, outputs: Tensor, targets: Tensor, at: Tensor) -> Tensor:
        """Pixels of each class that are right, that are said to be of it, and that are of it, (n, 3 classes)."""
        labelled = targets != NO_LABEL
        said, true = (self._marked(each, labelled) for each in (outputs[:, : self.outputs].argmax(dim=1), targets))
        return torch.cat([each.flatten(1, 2).sum(dim=1) for each in (said * true, said, true)], dim=1).double()

    def bounds(self) -> Floats:
        """Counts of pixels, of which an image may have any number."""
        size = 3 * self.outputs
        return np.stack([np.zeros(size), np.full(size, np.inf)])

    def columns(self, counts: Floats, sums: Floats, at: Floats) -> Mapping[str, Floats]:
        """Over all pixels of all images."""
        right, said, true = np.split(sums, 3, axis=-1)
        union = said + true - right
        there = (union > 0).sum(axis=-1)
        shares = np.divide(right, union, out=np.zeros(union.shape), where=union > 0)
        return {
            "mean_iou": ratio(shares.sum(axis=-1), there),
            "pixel_accuracy": ratio(right.sum(axis=-1), true.sum(axis=-1)),
        }

    def confusion(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Labelled pixels (C, C) by class and by predicted class."""
        return pairs(outputs.argmax(dim=1), targets, outputs.shape[1])

    def facts(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def _marked(self, classes: Tensor, labelled: Tensor) -> Tensor:
        """1 at the class of each labelled pixel, (n, H, W, classes)."""
        return one_hot(classes.clamp(min=0), self.outputs) * labelled[..., None]
