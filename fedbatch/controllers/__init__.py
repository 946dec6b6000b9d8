"""Controllers decide the phase of the next round: how many clients, with how many examples each."""

from fedbatch.controllers.adaptive import Adaptive
from fedbatch.controllers.fixed import Fixed
from fedbatch.controllers.goodput import Goodput
from fedbatch.controllers.noise_scale_switch import NoiseScaleSwitch
from fedbatch.controllers.phase import Controller, ControlState, Observation, Phase
from fedbatch.controllers.schedule import Schedule, doubling

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
