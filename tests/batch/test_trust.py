import numpy as np
import pytest

from fedbatch.batch.one_run import ToLoss
from fedbatch.batch.trust import Evidence, doubts


def goal(s_min=100.0, saturated=0.0):
    nowhere = (0.0, 1.0)
    return ToLoss(0.5, 300.0, 19_200.0, s_min, 9e3, 90.0, nowhere, nowhere, nowhere, saturated, np.ones((2, 2)))


SOUND = {"clients": 16.0, "climb": 0.1, "jump": 0.02}


def test_a_sound_run_has_none():
    assert doubts(goal(), Evidence(**SOUND)) == ()
    assert doubts(goal(), Evidence(**SOUND, drift=0.3, mixed=True)) == ()  # measured, and counted in the predictions


@pytest.mark.parametrize(
    "sums, evidence, said",
    [
        ({}, {"climb": 0.4}, "rate is probably too high for this batch: the loss climbs back by 40% of its way"),
        ({}, {"jump": 0.07}, "the loss jumps by 7% of its way between evaluations"),
        ({"saturated": 0.5}, {}, "windows with 50% of the rounds the gradient is lost in the noise"),
        ({}, {"clients": 4.0}, "only 4 clients in a round"),
        ({"s_min": 12.0}, {}, "only 12 noiseless steps"),
        ({}, {"drift": 0.8}, "clients differ: 80% of a client's noise is drift (m_drift)"),
        ({}, {"drift": None, "mixed": True}, "drift was not measured"),
        ({}, {"drift": None, "mixed": True, "everybody": True}, "B_crit is too large"),
        ({}, {"drift": 0.8, "everybody": True}, "B_crit is too large"),
    ],
)
def test_each_reason_is_said_alone(sums, evidence, said):
    (found,) = doubts(goal(**sums), Evidence(**(SOUND | evidence)))
    assert said in found
