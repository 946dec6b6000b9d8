"""Controllers decide the phase of the next round: how many clients, with how many examples each."""

from fedbatch.batch.controllers import Adaptive, Fixed, NoiseScaleSwitch, Schedule, doubling
from fedbatch.batch.goodput import Goodput
from fedbatch.batch.phases import Controller, ControlState, Observation, Phase

__all__ = [
    "Adaptive",
    "ControlState",
    "Controller",
    "Fixed",
    "Goodput",
    "NoiseScaleSwitch",
    "Observation",
    "Phase",
    "Schedule",
    "doubling",
]
