"""Losses: callables ``loss(logits, labels)`` that return a batch's mean and say whether they are ``per_example``.

Those that are also take ``reduction="none"``. The others estimate calibration from the whole batch; `Sum` puts them
beside one that teaches the labels.
"""

from fedbatch.losses.avuc import AvUC, SAvUC
from fedbatch.losses.binary import BCE
from fedbatch.losses.brier import Brier
from fedbatch.losses.confidence_penalty import ConfidencePenalty
from fedbatch.losses.cross_entropy import CrossEntropy
from fedbatch.losses.focal import FLSD53, Focal
from fedbatch.losses.mmce import MMCE
from fedbatch.losses.numbers import MAE, MSE, Huber
from fedbatch.losses.pixels import PixelCrossEntropy
from fedbatch.losses.soft_ece import SBECE, FrozenBins, SBECELabelBinned
from fedbatch.losses.sum import Sum
from fedbatch.losses.weighted import WeightedCrossEntropy

__all__ = [
    "BCE",
    "FLSD53",
    "MAE",
    "MMCE",
    "MSE",
    "SBECE",
    "AvUC",
    "Brier",
    "ConfidencePenalty",
    "CrossEntropy",
    "Focal",
    "FrozenBins",
    "Huber",
    "PixelCrossEntropy",
    "SAvUC",
    "SBECELabelBinned",
    "Sum",
    "WeightedCrossEntropy",
]
