"""What a node refuses to do for a server that does not keep to the run's own config."""

import math
from dataclasses import replace

import numpy as np
import pytest

from fedbatch.node.plausible import check_hosted, check_private_plan, check_round
from fedbatch.wire.check import MessageError
from fedbatch.wire.messages import PrivatePlan

NODE = {"partition-id": 1, "num-partitions": 3}  # of 20 clients: 7 to 13


def plan_of(loaded, **changed):
    plan = PrivatePlan(
        loaded.node_model.params.clone(), np.arange(4), 0, loaded.controller.phases[0].name, 4, 1.0, "auto"
    )
    return replace(plan, **changed)


@pytest.mark.parametrize("clients", [[7], [13], [7, 9, 13], []])
def test_own_clients_are_worked_for(make_task, clients):
    check_hosted(np.array(clients, dtype=np.int64), make_task("example_local"), NODE)


@pytest.mark.parametrize("clients", [[6], [14], [6, 7], [13, 14], [0, 19], [-1]])
def test_clients_of_other_nodes_are_refused(make_task, clients):
    with pytest.raises(MessageError, match="this node hosts the clients 7 to 13"):
        check_hosted(np.array(clients), make_task("example_local"), NODE)


def test_rounds_beyond_the_run_are_refused(make_task):
    loaded = make_task("example_local", "rounds=4")
    check_round(4, loaded)  # after the rounds, for a temperature
    with pytest.raises(MessageError, match="the run has 4 rounds, and is asked for round 1000000"):
        check_round(10**6, loaded)


@pytest.mark.parametrize("clip_norm", [math.nan, math.inf, 0.0, -1.0, 2.0, 0.5])
def test_only_the_runs_clip_norm_is_clipped_to(make_task, clip_norm):
    loaded = make_task("example_local", "privacy.clip_norm=1")
    check_private_plan(plan_of(loaded), loaded)
    check_private_plan(plan_of(loaded, clip_norm=float(np.float32(1.0))), loaded)
    with pytest.raises(MessageError, match="clip_norm is not the run's"):
        check_private_plan(plan_of(loaded, clip_norm=clip_norm), loaded)


@pytest.mark.parametrize(
    ("clip_norm", "fits"), [(0.3, True), (20.0, True), (math.nan, False), (0.0, False), (math.inf, False)]
)
def test_a_clip_norm_that_follows_a_quantile_is_any_length(make_task, clip_norm, fits):
    loaded = make_task("client_central", "privacy.clip_quantile=0.5", "privacy.count_noise=5")
    if fits:
        check_private_plan(plan_of(loaded, clip_norm=clip_norm), loaded)
        return
    with pytest.raises(MessageError, match="clip_norm is not the run's"):
        check_private_plan(plan_of(loaded, clip_norm=clip_norm), loaded)


def test_without_noise_there_may_be_no_clip_norm(make_task):
    loaded = make_task("client_central", "privacy.clip_norm=inf", "privacy.noise_multiplier=0")
    check_private_plan(plan_of(loaded, clip_norm=math.inf), loaded)


@pytest.mark.parametrize(
    ("changed", "said"), [({"phase": "larger"}, "no phase 'larger'"), ({"cohort_size": 21}, "more than there are")]
)
def test_phases_are_the_runs(make_task, changed, said):
    loaded = make_task("example_local")
    with pytest.raises(MessageError, match=said):
        check_private_plan(plan_of(loaded, **changed), loaded)
