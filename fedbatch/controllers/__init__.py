"""Controllers decide the phase of the next round: how many clients, with how many examples each."""

from fedbatch.controllers.goodput import Goodput
from fedbatch.controllers.phase import Controller, ControlState, Observation, Phase
from fedbatch.controllers.rules import Adaptive, Fixed, NoiseScaleSwitch, Schedule, doubling

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
