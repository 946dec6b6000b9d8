"""Modules under the names of 0.1, as people's own modules import them."""

import subprocess
import sys
from importlib import import_module

import pytest

from fedbatch.core.moved import MOVED


@pytest.mark.parametrize("name", MOVED)
def test_a_name_of_before_is_the_very_module_of_now(name):
    assert import_module(name) is import_module(MOVED[name])


def test_what_the_documentation_of_0_1_imported():
    from fedbatch.batch.controllers import Adaptive, Fixed, NoiseScaleSwitch, Schedule, doubling
    from fedbatch.batch.goodput import Goodput
    from fedbatch.batch.phases import ControlState, Observation, Phase
    from fedbatch.batch.tracker import Interval, Tracker
    from fedbatch.state import ServerState, load_latest
    from fedbatch.time_model import TimeModel

    from fedbatch.data.dataset import Dataset

    now = import_module("fedbatch.controllers")
    assert (Fixed, Phase, Goodput) == (now.Fixed, now.Phase, now.Goodput)
    assert isinstance(Phase("a", 1), now.Phase) and Tracker(0.9).update
    assert all((Adaptive, NoiseScaleSwitch, Schedule, doubling, ControlState, Observation, Interval))
    assert all((Dataset, ServerState, load_latest, TimeModel))


def test_they_stand_in_the_way_of_no_public_name():
    code = "import fedbatch.app, fedbatch.task, fedbatch, fedbatch.models; from fedbatch.models import cnn; "
    code += "assert callable(fedbatch.run) and callable(cnn) and callable(fedbatch.models.cnn)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_module_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        import_module("fedbatch.nothing")
