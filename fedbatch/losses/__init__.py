"""Losses: callables ``loss(logits, labels, reduction="mean")`` that say whether they are ``per_example``."""

from fedbatch.losses.cross_entropy import CrossEntropy

__all__ = ["CrossEntropy"]
