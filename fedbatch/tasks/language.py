"""Sequences with a label a position, such as the next token: perplexity and accuracy over tokens."""

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
from fedbatch.losses.examples import NO_LABEL, log_probability
from fedbatch.tasks.classification import ACCURACY, pairs, share_right
from fedbatch.tasks.protocol import Floats, ratio, with_known

PERPLEXITY = Score("perplexity", "exp of the mean of -ln p over the labelled tokens of the test split", "lower", 1)
TOKENS_RIGHT = Score("token_accuracy", "share of the labelled tokens that is right", "higher", 0, 1)
LARGEST = 700.0
"""Of a mean of -ln p, beyond which its exponential is no number of float64."""


@dataclass(frozen=True)
class Language:
    """Labels (N, T) of tokens with -100 where there is none; logits (N, T, tokens).

    A sequence counts once in ``accuracy``, by the share of its tokens that are right, as it does in the loss. A token
    counts once in ``perplexity`` and ``token_accuracy``.
    """

    outputs: int = field(init=False, default=0)
    at: Floats = field(init=False, default_factory=lambda: np.zeros(0))
    rule: LabelRule = field(init=False, default=CLASSES)
    scores: tuple[Score, ...] = field(init=False, default=(ACCURACY, PERPLEXITY, TOKENS_RIGHT))
    score: str = field(init=False, default="perplexity")
    class_axis: int | None = field(init=False, default=-1)

    def fitted(self, labels: npt.NDArray[Any], num_classes: int | None) -> "Language":
        """Of a vocabulary of so many tokens."""
        if labels.ndim != 2:
            raise ValueError(f"task: language takes a label a position, and train_y has shape {labels.shape}")
        return with_known(self, outputs=num_classes)

    def targets(self, labels: npt.NDArray[Any]) -> Tensor:
        """The labels as they are."""
        return torch.from_numpy(labels)

    def loss(self) -> CrossEntropy:
        """Cross-entropy, mean over the tokens of a sequence."""
        return CrossEntropy()

    def output_shape(self, targets: tuple[int, ...]) -> tuple[int, ...]:
        """Tokens along a last axis."""
        return (*targets, self.outputs)

    def trial(self) -> tuple[Tensor, Tensor] | None:
        """None: torch's means are over the tokens of a batch, however they lie in sequences."""
        return None

    def readable(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities with classes along axis 1, and labels."""
        return outputs.softmax(dim=-1).movedim(-1, 1), targets

    def sums(self, outputs: Tensor, targets: Tensor, at: Tensor) -> Tensor:
        """Share of right tokens, right tokens, tokens, and sum of -ln p, (n, 4)."""
        told = targets != NO_LABEL
        right = (outputs.argmax(dim=-1) == targets).sum(dim=1)
        nll = -(log_probability(outputs, targets).double() * told).sum(dim=1)
        return torch.stack([share_right(outputs, targets), right, told.sum(dim=1), nll], dim=1)

    def bounds(self) -> Floats:
        """Nobody has more right than there is."""
        return np.array([[0.0, 0.0, 0.0, 0.0], [1.0, np.inf, np.inf, np.inf]])

    def columns(self, counts: Floats, sums: Floats, at: Floats) -> Mapping[str, Floats]:
        """Over sequences and over tokens."""
        share, right, tokens, nll = np.moveaxis(sums, -1, 0)
        return {
            "accuracy": ratio(share, counts),
            "perplexity": np.exp(np.minimum(ratio(nll, tokens), LARGEST)),
            "token_accuracy": ratio(right, tokens),
        }

    def confusion(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Positions with a label (C, C) by class and by predicted class."""
        return pairs(outputs.argmax(dim=-1), targets, outputs.shape[-1])

    def facts(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}
