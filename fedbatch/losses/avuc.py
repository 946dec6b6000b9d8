"""Accuracy versus uncertainty: right predictions should be certain and wrong ones uncertain.

With t = tanh(h) of the entropy h (nats), four sums over a batch: accurate and certain AC, accurate and uncertain AU,
inaccurate and certain IC, inaccurate and uncertain IU. The loss is ``ln(1 + (AU + IC) / (AC + IU))``.
"""

import math

import torch
from torch import Tensor

from fedbatch.losses.examples import predictions

SMALLEST = 1e-5
"""Least sum that is divided by, and the share of a prediction that is spread over all classes before its entropy."""
EDGE = 1e-4
"""How near normalised entropy comes to 0 and 1, where its log-odds, and so the original's gradient, are infinite."""


class AvUC:
    """AvU calibration loss (Krishnan & Tickoo 2020): certain is who has less entropy than a threshold.

    Accurate examples weigh in with their confidence, inaccurate ones with its complement.

    Args:
        threshold: of the entropy, above 0, in nats; at most ln(classes) to be of any use.

    >>> sure, torn = [9.0, 0.0], [0.1, 0.0]
    >>> right_is_sure = AvUC(0.5)(torch.tensor([sure, torn]), torch.tensor([0, 1]))
    >>> wrong_is_sure = AvUC(0.5)(torch.tensor([sure, torn]), torch.tensor([1, 0]))
    >>> bool(right_is_sure < wrong_is_sure)
    True
    """

    per_example = False

    def __init__(self, threshold: float):
        if not threshold > 0:
            raise ValueError(f"threshold must be above 0 nats (got {threshold})")
        self.threshold = threshold

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss, a scalar, of ``logits`` (batch, ..., classes) against ``labels`` (batch, ...)."""
        probs, confidence, correct = predictions(logits, labels)
        entropy = _entropy(probs)
        uncertain = (entropy >= self.threshold).to(probs.dtype)
        weight = correct * confidence + (1 - correct) * (1 - confidence)
        return _log_ratio(weight * (1 - uncertain), weight * uncertain, entropy, correct)


class SAvUC:
    """Soft AvUC (Karandikar et al. 2021, eq. 15): an example is uncertain to a degree, which takes the weight's place.

    The degree is ``sigmoid((logit(h / ln classes) - logit(kappa)) / temperature)``.

    Args:
        kappa: in (0, 1), the normalised entropy that counts as half uncertain.
        temperature: above 0; towards 0 the degree becomes a threshold.
    """

    per_example = False

    def __init__(self, kappa: float, temperature: float):
        if not 0 < kappa < 1:
            raise ValueError(f"kappa must be in (0, 1) (got {kappa})")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0 (got {temperature})")
        self.kappa, self.temperature = kappa, temperature

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss, a scalar, of ``logits`` (batch, ..., classes) against ``labels`` (batch, ...)."""
        probs, _, correct = predictions(logits, labels)
        entropy = _entropy(probs)
        log_odds = torch.logit(entropy / math.log(probs.shape[-1]), eps=EDGE)
        uncertain = torch.sigmoid((log_odds - math.log(self.kappa / (1 - self.kappa))) / self.temperature)
        return _log_ratio(1 - uncertain, uncertain, entropy, correct)


def _entropy(probs: Tensor) -> Tensor:
    """Entropy (n,) in nats of slightly smoothed predictions (n, classes), so that no logarithm is of 0."""
    smooth = (1 - SMALLEST) * probs + SMALLEST / probs.shape[-1]
    return -torch.sum(smooth * smooth.log(), dim=-1)


def _log_ratio(certain: Tensor, uncertain: Tensor, entropy: Tensor, correct: Tensor) -> Tensor:
    """The loss from the weights (n,) with which each example counts as certain and as uncertain."""
    t, wrong = entropy.tanh(), 1 - correct
    good = torch.sum(correct * certain * (1 - t) + wrong * uncertain * t)
    bad = torch.sum(correct * uncertain * t + wrong * certain * (1 - t))
    return torch.log1p(bad / good.clamp(min=SMALLEST))
