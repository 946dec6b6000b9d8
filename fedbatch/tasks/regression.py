"""Regression: real numbers, scored by squared and absolute errors and by R², from sums that add up."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbatch.core.scores import Score
from fedbatch.data.label_rules import NUMBERS, LabelRule
from fedbatch.data.rows import listed
from fedbatch.losses.numbers import MSE
from fedbatch.tasks.protocol import Floats, ratio, with_known

log = logging.getLogger("fedbatch")

R2 = Score("r2", "share of the variance of the test labels that is explained, mean over outputs (R²)", "higher", high=1)
MEAN_SQUARE = Score("mse", "mean squared error on the test split, in squared units of the labels", "lower", low=0)
MEAN_ABSOLUTE = Score("mae", "mean absolute error on the test split, in units of the labels", "lower", low=0)

FEWEST_STEPS = 1000  # float32 values between the smallest and the largest of a label
FAR = 100.0
"""Of labels from 0, and of their deviation from 1, beyond which models that start near 0 learn badly."""
CONSTANT = 1e-12
"""Share of the sum of squares that is rounding, so that less is no variance."""


@dataclass(frozen=True)
class Regression:
    """Labels (N,) or (N, k) of real numbers; outputs (N, k), with k = 1 for (N,).

    Squares are added up as distances from the mean of the server's training labels, so that R² loses no digits to
    labels far from 0. All scores are in the labels' own units.

    Args:
        standardise: train on ``(label - centre) / scale``, of which the model predicts one; the summary tells both.
        centre: of the labels, a number or one an output; null = the mean of the training labels.
        scale: likewise, above 0; null = their standard deviation.
    """

    standardise: bool = False
    centre: float | list[float] | None = None
    scale: float | list[float] | None = None

    outputs: int = field(init=False, default=0)
    at: Floats = field(init=False, default_factory=lambda: np.zeros(0))
    rule: LabelRule = field(init=False, default=NUMBERS)
    scores: tuple[Score, ...] = field(init=False, default=(R2, MEAN_SQUARE, MEAN_ABSOLUTE))
    score: str = field(init=False, default="r2")
    class_axis: int | None = field(init=False, default=None)
    _shift: Floats = field(init=False, default_factory=lambda: np.zeros(0))
    _scale: Floats = field(init=False, default_factory=lambda: np.ones(0))

    def __post_init__(self) -> None:
        if not self.standardise and (self.centre is not None or self.scale is not None):
            raise ValueError("task: centre and scale are for standardise=true; set it, or both to null")
        if self.scale is not None and not (np.isfinite(self.scale).all() and (np.asarray(self.scale) > 0).all()):
            raise ValueError(f"task.scale must be above 0 (got {self.scale})")
        if self.centre is not None and not np.isfinite(self.centre).all():
            raise ValueError(f"task.centre must be a finite number (got {self.centre})")

    @property
    def needs_all_labels(self) -> bool:
        """Whether what is trained on depends on labels of everybody, which a node with data of its own has not."""
        return self.standardise and (self.centre is None or self.scale is None)

    def fitted(self, labels: npt.NDArray[Any], num_classes: int | None) -> "Regression":
        """With the constants of these training labels (N, k)."""
        mean, spread, width = labels.mean(axis=0), labels.std(axis=0), labels.shape[1]
        shift, scale = np.zeros(width), np.ones(width)
        if self.standardise:
            shift = mean if self.centre is None else _one_each("centre", self.centre, width)
            scale = np.where(spread > 0, spread, 1.0) if self.scale is None else _one_each("scale", self.scale, width)
        else:
            _check_narrowing(labels)
            far = np.maximum(np.abs(mean), spread).max()
            if far > FAR or spread.max() < 1 / FAR:
                log.warning("task: labels are around %.3g, which few models start near; set task.standardise=true", far)
        return with_known(self, outputs=width, at=mean, _shift=shift, _scale=scale)

    def targets(self, labels: npt.NDArray[Any]) -> Tensor:
        """Float32 (N, k), standardised if that is asked for."""
        scaled = (labels - self._shift) / self._scale
        beyond = np.asarray((np.abs(scaled) > np.finfo(np.float32).max).any(axis=1))
        if beyond.any():
            raise ValueError(f"dataset: labels are beyond the range of float32 in {listed(beyond)}; correct them")
        return torch.from_numpy(scaled.astype(np.float32))

    def loss(self) -> MSE:
        """The squared error."""
        return MSE()

    def output_shape(self, targets: tuple[int, ...]) -> tuple[int, ...]:
        """That of the targets."""
        return targets

    def trial(self) -> tuple[Tensor, Tensor] | None:
        """Normal numbers."""
        return _normal(self.outputs, 0), _normal(self.outputs, 1)

    def readable(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions and labels in the labels' own units, float64."""
        scale, shift = (torch.as_tensor(each, device=outputs.device) for each in (self._scale, self._shift))
        return outputs.double() * scale + shift, targets.double() * scale + shift

    def sums(self, outputs: Tensor, targets: Tensor, at: Tensor) -> Tensor:
        """Squared and absolute errors, distances of the labels from ``at`` and their squares, (n, 4 k)."""
        scale, shift = (torch.as_tensor(each, device=outputs.device) for each in (self._scale, self._shift))
        error = (outputs.double() - targets.double()) * scale
        distance = targets.double() * scale + (shift - at)
        return torch.cat([error.square(), error.abs(), distance, distance.square()], dim=1)

    def bounds(self) -> Floats:
        """Only distances may be negative."""
        least = np.repeat([0.0, 0.0, -np.inf, 0.0], self.outputs)
        return np.stack([least, np.full(4 * self.outputs, np.inf)])

    def columns(self, counts: Floats, sums: Floats, at: Floats) -> Mapping[str, Floats]:
        """Means over outputs. R² is not a number where the labels of an output do not vary."""
        counts = np.asarray(counts)[..., None]
        squared, absolute, distance, squares = np.split(sums, 4, axis=-1)
        variation = squares - ratio(distance * distance, counts)
        varies = (counts > 1) & (variation > CONSTANT * squares)
        unexplained = np.divide(squared, variation, out=np.full(squared.shape, np.nan), where=varies)
        return {
            "r2": 1 - unexplained.mean(axis=-1),
            "mse": ratio(squared, counts).mean(axis=-1),
            "mae": ratio(absolute, counts).mean(axis=-1),
        }

    def facts(self) -> Mapping[str, Any]:
        """Of standardised labels, what turns a prediction into a label: ``scale * prediction + centre``."""
        return {"label_centre": self._shift.tolist(), "label_scale": self._scale.tolist()} if self.standardise else {}


def _one_each(name: str, value: float | list[float], width: int) -> Floats:
    values = np.asarray(value, np.float64)
    if values.ndim and values.shape != (width,):
        raise ValueError(f"task.{name} must be one number, or one for each of {width} outputs (got {value})")
    return np.broadcast_to(values, width).copy()


def _check_narrowing(labels: Floats) -> None:
    """Refuse labels that float32 cannot hold, or holds so coarsely that differences are gone."""
    low, high = labels.min(axis=0), labels.max(axis=0)
    largest = np.maximum(np.abs(low), np.abs(high))
    coarse = (high > low) & (high - low < FEWEST_STEPS * largest * np.finfo(np.float32).eps)
    if coarse.any() or (largest > np.finfo(np.float32).max).any():
        where = int(np.argmax(coarse | (largest > np.finfo(np.float32).max)))
        raise ValueError(
            f"dataset: train_y runs from {low[where]:.9g} to {high[where]:.9g} in output {where}, which float32 cannot "
            "tell apart; set task.standardise=true"
        )


def _normal(width: int, seed: int) -> Tensor:
    return torch.randn(6, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
