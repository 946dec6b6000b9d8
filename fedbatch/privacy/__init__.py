"""Differential privacy: mechanisms that own sampling, clipping, noise and their accounted event, and one ledger."""

from fedbatch.privacy.accounting import epsilon, noise_multiplier

__all__ = ["epsilon", "noise_multiplier"]
