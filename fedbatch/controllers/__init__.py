"""Controllers decide the phase of the next round: how many clients, with how many examples each."""

from fedbatch.controllers.adaptive import Adaptive
from fedbatch.controllers.adascale import AdaScale
from fedbatch.controllers.fixed import Fixed
from fedbatch.controllers.gain import Gain
from fedbatch.controllers.goodput import Goodput
from fedbatch.controllers.late_switch import late_switch
from fedbatch.controllers.noise_scale_ladder import NoiseScaleLadder
from fedbatch.controllers.noise_scale_switch import NoiseScaleSwitch
from fedbatch.controllers.normtest import NormTest
from fedbatch.controllers.phase import Controller, ControlState, Observation, Phase
from fedbatch.controllers.schedule import Schedule, doubling
from fedbatch.controllers.seesaw import seesaw

__all__ = [
    "AdaScale",
    "Adaptive",
    "ControlState",
    "Controller",
    "Fixed",
    "Gain",
    "Goodput",
    "NoiseScaleLadder",
    "NoiseScaleSwitch",
    "NormTest",
    "Observation",
    "Phase",
    "Schedule",
    "doubling",
    "late_switch",
    "seesaw",
]
