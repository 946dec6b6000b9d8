"""Who of the clients that are there takes part in a round, where that is not as the word ``sampling`` says."""

from fedbatch.samplers.power_of_choice import PowerOfChoice
from fedbatch.samplers.sampler import Candidates, Sample, Sampler
from fedbatch.samplers.stratified import Stratified
from fedbatch.samplers.systematic import inclusion, systematic
from fedbatch.samplers.weighted import Weighted

__all__ = [
    "Candidates",
    "PowerOfChoice",
    "Sample",
    "Sampler",
    "Stratified",
    "Weighted",
    "inclusion",
    "systematic",
]
