"""Metrics of torchmetrics beside a task's own scores, where their states add up."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbatch.core.scores import Score
from fedbatch.data.label_rules import LabelRule
from fedbatch.tasks.protocol import Floats, with_known

Shapes = Mapping[str, tuple[int, ...]]
BETTER = {True: "higher", False: "lower", None: ""}
CLOSE = 1e-6
"""Relative difference between the states of a batch and the sum of those of its examples."""


@dataclass(frozen=True)
class WithTorchMetrics:
    """A task with further scores, each a ``torchmetrics.Metric`` all of whose states have ``dist_reduce_fx="sum"``.

    A metric sees what ``base.readable`` gives: probabilities and classes, or numbers in the labels' own units. It is
    updated example by example, which takes about a tenth of a millisecond an example and metric.

    Args:
        base: the task, of fedbatch or with a method ``readable(outputs, targets)``.
        metrics: metrics by the names of their columns.
        score: *the* score, of the metrics or of ``base``; null = that of ``base``.

    Raises:
        ValueError: naming the metric and the state that does not add up.
    """

    base: Any
    metrics: Mapping[str, Any]
    score: str | None = None

    at: Floats = field(init=False, default_factory=lambda: np.zeros(0))
    shapes: Mapping[str, Shapes] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not hasattr(self.base, "readable"):
            raise ValueError(f"task.base: {type(self.base).__name__} has no readable; see fedbatch.tasks")
        for name, metric in self.metrics.items():
            _refuse(name, metric)
        if self.score is None:
            object.__setattr__(self, "score", self.base.score)

    @property
    def rule(self) -> LabelRule:
        """That of the task."""
        rule: LabelRule = self.base.rule
        return rule

    @property
    def scores(self) -> tuple[Score, ...]:
        """Those of the task and of the metrics."""
        own = (Score(n, type(m).__name__, BETTER[m.higher_is_better]) for n, m in self.metrics.items())
        return (*self.base.scores, *own)

    @property
    def class_axis(self) -> int | None:
        """That of the task."""
        axis: int | None = self.base.class_axis
        return axis

    @property
    def confusion(self) -> Any:
        """That of the task; None if it has none."""
        return getattr(self.base, "confusion", None)

    @property
    def outputs(self) -> int:
        """Those of the task."""
        return int(self.base.outputs)

    def fitted(self, labels: npt.NDArray[Any], num_classes: int | None) -> "WithTorchMetrics":
        """The task fitted, and the metrics tried.

        Raises:
            ValueError: a metric that does not take such predictions, or whose states do not add up over examples.
        """
        base, shapes = self.base.fitted(labels, num_classes), {}
        trial = base.trial()
        for name, metric in self.metrics.items():
            if trial is not None:
                _try(name, metric, *base.readable(*trial))
            shapes[name] = _shapes(metric)
        return with_known(self, base=base, at=base.at, shapes=shapes)

    def targets(self, labels: npt.NDArray[Any]) -> Tensor:
        """Those of the task."""
        return self.base.targets(labels)

    def loss(self) -> Any:
        """That of the task."""
        return self.base.loss()

    def output_shape(self, targets: tuple[int, ...]) -> tuple[int, ...]:
        """That of the task."""
        shape: tuple[int, ...] = self.base.output_shape(targets)
        return shape

    def trial(self) -> tuple[Tensor, Tensor] | None:
        """That of the task."""
        trial: tuple[Tensor, Tensor] | None = self.base.trial()
        return trial

    def readable(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """As the task has it."""
        predictions, labels = self.base.readable(outputs, targets)
        return predictions, labels

    def sums(self, outputs: Tensor, targets: Tensor, at: Tensor) -> Tensor:
        """Those of the task, then the states of each metric."""
        predictions, labels = self.readable(outputs, targets)
        own = [self.base.sums(outputs, targets, at)]
        for metric in self.metrics.values():
            metric.to(predictions.device)
            pairs = zip(predictions.split(1), labels.split(1), strict=True)
            own.append(torch.stack([_update(metric, *pair) for pair in pairs]))
        return torch.cat(own, dim=1)

    def bounds(self) -> Floats:
        """Those of the task; states may be anything."""
        size = sum(self._sizes())
        return np.concatenate([self.base.bounds(), np.array([[-np.inf], [np.inf]]).repeat(size, axis=1)], axis=1)

    def columns(self, counts: Floats, sums: Floats, at: Floats) -> Mapping[str, Floats]:
        """Those of the task, and what each metric computes of its states; NaN where there is nothing."""
        ends = np.cumsum([self.base.bounds().shape[1], *self._sizes()])
        own, *states = np.split(sums, ends[:-1], axis=-1)
        found = dict(self.base.columns(counts, own, at))
        for (name, metric), state in zip(self.metrics.items(), states, strict=True):
            rows = zip(np.ravel(counts), state.reshape(-1, state.shape[-1]), strict=True)
            values = [_number(metric, self.shapes[name], row) if count else math.nan for count, row in rows]
            found[name] = np.array(values).reshape(np.shape(counts))
        return found

    def facts(self) -> Mapping[str, Any]:
        """Those of the task."""
        facts: Mapping[str, Any] = self.base.facts()
        return facts

    def _sizes(self) -> list[int]:
        return [sum(map(math.prod, shapes.values())) for shapes in self.shapes.values()]


def _refuse(name: str, metric: Any) -> None:
    from torchmetrics.utilities import dim_zero_sum

    defaults, reductions = getattr(metric, "_defaults", None), getattr(metric, "_reductions", {})
    if not defaults:
        raise ValueError(f"task.metrics.{name}: a {type(metric).__name__} has no states; give one metric by its name")
    for state, default in defaults.items():
        if not isinstance(default, Tensor) or reductions[state] is not dim_zero_sum:
            kind = getattr(reductions[state], "__name__", "none").removeprefix("dim_zero_")
            raise ValueError(
                f"task.metrics.{name}: state {state} of {type(metric).__name__} is put together by {kind!r}, and only "
                'sums add up over clients; choose a form with dist_reduce_fx="sum", such as thresholds=100 of an area'
            )


def _try(name: str, metric: Any, predictions: Tensor, labels: Tensor) -> None:
    """Refuse a metric that fails on such predictions, whose states do not add up, or that gives no single number."""
    try:
        whole = _update(metric, predictions, labels)
        pairs = zip(predictions.split(1), labels.split(1), strict=True)
        each = torch.stack([_update(metric, *pair) for pair in pairs]).sum(dim=0)
        value = _compute(metric, _shapes(metric), whole.numpy())
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"task.metrics.{name}: cannot be updated with such predictions: {text}") from error
    if not torch.allclose(whole, each, rtol=CLOSE, atol=CLOSE):
        raise ValueError(f"task.metrics.{name}: the states of single examples do not add up to those of a batch")
    if not (isinstance(value, Tensor) and value.numel() == 1):
        raise ValueError(f"task.metrics.{name}: gives {value!r}, and a score is one number; set average=macro or micro")


def _update(metric: Any, predictions: Tensor, labels: Tensor) -> Tensor:
    """What an update adds to the states, float64 (S,)."""
    metric.reset()
    metric.update(predictions, labels)
    states = ((getattr(metric, state), default) for state, default in metric._defaults.items())
    return torch.cat([(value.double() - default.to(value.device).double()).flatten() for value, default in states])


def _compute(metric: Any, shapes: Shapes, sums: Floats) -> Any:
    """What the metric gives of states of these shapes."""
    metric.reset()
    parts = np.split(sums, np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1])
    for (state, shape), values in zip(shapes.items(), parts, strict=True):
        default, place = metric._defaults[state], getattr(metric, state).device
        whole = torch.from_numpy(values).reshape(shape) + default.double().cpu()
        setattr(metric, state, whole.to(default.dtype).to(place))
    metric._update_count = 1  # else it warns of being computed before any update
    return metric.compute()


def _number(metric: Any, shapes: Shapes, sums: Floats) -> float:
    """The same as a number; NaN where the metric says that there are too few examples."""
    try:
        return float(_compute(metric, shapes, sums))
    except ValueError:
        return math.nan


def _shapes(metric: Any) -> Shapes:
    """The shape of each state, which an update may have changed."""
    return {state: tuple(getattr(metric, state).shape) for state in metric._defaults}
