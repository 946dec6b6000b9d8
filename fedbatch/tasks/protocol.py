"""What a task is to the rest of fedbatch: what labels it takes, and how predictions are scored by sums that add up."""

import copy
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fedbatch.core.scores import Score
from fedbatch.data.label_rules import LabelRule

Floats = npt.NDArray[np.float64]
Task = TypeVar("Task")


class LearningTask(Protocol):
    """What is learnt, such as `fedbatch.tasks.Regression`, or one of your own.

    Attributes:
        rule: what labels it takes, and the type and shape that they get.
        scores: the columns that are computed from sums.
        score: name of *the* score among them.
        class_axis: axis of the outputs with a number for each class; None where there is none.
        outputs: what a model gets as ``num_classes``: classes, or numbers to predict. Known once it is fitted.
        at: float64 (m,) constants that sums are taken at; those of the server hold on every node.

    A task may also have ``confusion(outputs, targets)``, counts (C, C) by class and by predicted class, which are
    written after the last round; and ``readable(outputs, targets)``, both as people and torchmetrics read them.
    """

    rule: LabelRule
    scores: tuple[Score, ...]
    score: str
    class_axis: int | None
    outputs: int
    at: Floats

    def fitted(self, labels: npt.NDArray[Any], num_classes: int | None) -> "LearningTask":
        """The task for training labels (N, ...) of its rule, with so many classes.

        Raises:
            ValueError: labels that it cannot work with.
        """
        ...

    def targets(self, labels: npt.NDArray[Any]) -> Tensor:
        """What the loss compares outputs with, from labels (N, ...) of the rule."""
        ...

    def loss(self) -> Any:
        """The loss that takes the place of the default one."""
        ...

    def output_shape(self, targets: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the outputs for targets of a shape (n, ...)."""
        ...

    def trial(self) -> tuple[Tensor, Tensor] | None:
        """Float64 outputs and targets on which a loss shows whether it is by example; None where none can be."""
        ...

    def sums(self, outputs: Tensor, targets: Tensor, at: Tensor) -> Tensor:
        """Float64 sums (n, S) of each of n examples, which add up over examples, clients and nodes."""
        ...

    def bounds(self) -> Floats:
        """The least and the most (2, S) that each sum can be of one example; infinite where there is no limit."""
        ...

    def columns(self, counts: Floats, sums: Floats, at: Floats) -> Mapping[str, Floats]:
        """Each of ``scores`` by its name, (...), from counts (...) and sums (..., S); NaN where there is nothing."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """Plain values that a reader of scores or of predictions needs, for the summary; often none."""
        ...


def with_known(task: Task, **values: Any) -> Task:
    """A copy of a task that knows what was found in the labels."""
    known = copy.copy(task)
    for name, value in values.items():
        object.__setattr__(known, name, value)
    return known


def ratio(sums: Floats, counts: Floats) -> Floats:
    """Sums over counts, NaN where there is nothing."""
    nothing = np.full(np.broadcast(sums, counts).shape, np.nan)
    return np.divide(sums, counts, out=nothing, where=counts > 0)
