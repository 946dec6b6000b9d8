"""Goodput by the measured gain curve: B_half stands where the noise scale stood, and nothing else does."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from fedbatch.api import execute
from fedbatch.batch.average import Averages, Interval
from fedbatch.batch.gain import GroupSums
from fedbatch.batch.noise_scale import NoiseScale
from fedbatch.batch.time_model import TimeModel
from fedbatch.controllers import ControlState, Gain, Goodput, Observation, Phase
from fedbatch.core.errors import ConfigError
from fedbatch.results.store import read_rows

PHASES = {"a": Phase("small", 16, 4), "b": Phase("middle", 64, 4), "c": Phase("large", 64, 16)}
LAN = TimeModel(0.001, 0.0, 0.001, 1e8, 1e8)
NOISE = Interval(5.0, 4.0, 6.0, 10.0)


def seen(half, low=None, high=None):
    interval = None if half is None else Interval(half, low or half, high or half, 5.0)
    return Observation(30, 64.0, NOISE, "examples", 200_000, half=interval)


@pytest.mark.parametrize("cost", ["rounds", "examples", "bytes", "seconds"])
@pytest.mark.parametrize("half", [0.0, 3.0, 250.0, 600.0, 5000.0, math.inf])
def test_decides_as_goodput_does_of_b_half(cost, half):
    state, observation = ControlState("small"), seen(half)
    after = Gain(PHASES, cost, LAN).next(state, observation)
    expected = Goodput(PHASES, cost, LAN).next(state, replace(observation, noise_scale=observation.half))
    assert (after.phase, after.since_round, after.lr_noise_scale) == (
        expected.phase,
        expected.since_round,
        expected.lr_noise_scale,
    )


def test_bytes_turn_where_computed_by_hand_and_the_reason_names_b_half():
    gain = Gain(PHASES, "bytes", LAN)
    assert gain.next(gain.start(), seen(200.0)) == gain.start()  # 16 (1 + h/64) = 64 (1 + h/1024) at h = 256
    after = gain.next(gain.start(), seen(448.0, 300.0, 500.0))
    assert after.reason == "B_half 448 [300, 500]: large makes 1.39 times the progress for its bytes"


def test_waits_while_b_half_has_no_interval_whatever_the_noise_scale():
    gain = Gain(PHASES, "rounds", LAN)
    assert gain.next(gain.start(), seen(None)) == gain.start()


def test_b_half_has_an_interval_from_the_third_measured_round_on():
    averages, known = Averages.start(0.9, 1.645), []
    groups = GroupSums(16.0, (0.0,) * 3, (10.0, 6.0, 4.0), (1.0,) * 3, (1.0,) * 6)
    for _ in range(4):
        averages = averages.update(NoiseScale(2.0, 128.0, 64.0, 0.01, 0.01), None, groups)
        known.append(averages.half())
    assert known[:2] == [None, None]
    assert known[3].low <= known[3].value <= known[3].high and known[3].value == pytest.approx(64, rel=0.03)


def test_a_run_is_moved_by_it(make_config):
    settings = ["controller=gain", "controller.cost=rounds", "controller.settle_rounds=2", "controller.margin=1"]
    settings += [f"controller.phases.{name}.cohort_size=16" for name in ("middle", "large")]
    config = make_config(*settings, "rounds=20", "noise_scale.groups=4", "noise_scale.every=1")
    execute(config)
    rows = read_rows(Path(config.run_dir) / "rounds.jsonl")
    (switch, *_) = (row["switch"] for row in rows if row["switch"])
    assert switch.startswith("B_half") and rows[-1]["phase"] != "small"


def test_without_groups_it_is_refused(make_config):
    sizes = [f"controller.phases.{name}.cohort_size=8" for name in ("middle", "large")]
    with pytest.raises(ConfigError, match=r"set noise_scale.groups=8 noise_scale.every=5"):
        execute(make_config("controller=gain", *sizes))
