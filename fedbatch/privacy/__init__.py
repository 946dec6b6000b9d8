"""Differential privacy: mechanisms that own sampling, clipping, noise and their accounted event, and one ledger."""

from fedbatch.privacy.accounting import epsilon, noise_multiplier
from fedbatch.privacy.mechanisms import ClientCentral, ExampleDistributed, ExampleLocal

__all__ = ["ClientCentral", "ExampleDistributed", "ExampleLocal", "epsilon", "noise_multiplier"]
