"""Single releases of a private task, with any noise and data."""

from dataclasses import replace

import numpy as np
import torch

from fedbatch.core.random import Ints
from fedbatch.node.private import train_private
from fedbatch.wire.messages import PrivatePlan


def with_noise(run, sigma):
    """The same task, keys and all, with another noise multiplier."""
    calibration = replace(run.privacy.calibration, first_noise=sigma)
    return replace(run, privacy=replace(run.privacy, calibration=calibration))


def with_data(run, x, y):
    return replace(run, train_x=torch.as_tensor(x).to(run.train_x), train_y=torch.as_tensor(y).to(run.train_y))


def plan_of(run, clients: Ints, round_=0, params=None, clip_norm=1.0, executor="fused"):
    params = run.new_model().params if params is None else params
    phase = run.controller.phases[0]
    return PrivatePlan(params, np.asarray(clients), round_, phase.name, phase.cohort_size, clip_norm, executor)


def contribution(run, clients, **options):
    return train_private(plan_of(run, clients, **options), run, run.privacy)


def sum_of(run, clients, **options):
    """The update sum (d,) of one node in float64."""
    return contribution(run, clients, **options).update_sum.double()
