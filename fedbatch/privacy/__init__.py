"""Differential privacy: mechanisms that own sampling, clipping, noise and their accounted event, and one ledger."""

from fedbatch.privacy.accounting import epsilon, noise_multiplier
from fedbatch.privacy.best_of import epsilon_of_best
from fedbatch.privacy.mechanisms import ClientCentral, ExampleCentral, ExampleDistributed, ExampleLocal

__all__ = [
    "ClientCentral",
    "ExampleCentral",
    "ExampleDistributed",
    "ExampleLocal",
    "epsilon",
    "epsilon_of_best",
    "noise_multiplier",
]
