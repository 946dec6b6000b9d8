"""What labels and scores are: a task takes labels of one kind, and scores predictions by sums that add up."""

from fedbatch.core.scores import Score
from fedbatch.tasks.classification import Classification
from fedbatch.tasks.language import Language
from fedbatch.tasks.multi_label import MultiLabel
from fedbatch.tasks.protocol import LearningTask
from fedbatch.tasks.regression import Regression
from fedbatch.tasks.segmentation import Segmentation
from fedbatch.tasks.torch_metrics import WithTorchMetrics

__all__ = [
    "Classification",
    "Language",
    "LearningTask",
    "MultiLabel",
    "Regression",
    "Score",
    "Segmentation",
    "WithTorchMetrics",
]
