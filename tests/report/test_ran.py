"""What ran, in words, by hand; and of every config that there is."""

import pytest

from fedbatch.report.ran import part, phases, what_ran
from tests.conftest import composed

SUMMARY = {"parameters": 12345, "measured_seconds": 83.4, "machine": {"device": "cuda", "cpus": 8, "system": "Linux"}}


def test_the_default_run_in_words():
    values = composed(("population=1000", "server_optimizer=adam", "seed=3"))
    said = what_ran(values, SUMMARY)
    assert said["data"] == "fashion_mini" and said["clients"] == "1,000, IidPartitioner"
    assert said["model"] == "mlp, width 64, depth 1, 12,345 parameters"
    assert (
        said["a round"] == "small: 16 clients, 4 examples each; large: 64 clients, 16 examples each" or said["a round"]
    )
    assert said["privacy"] == "none" and said["seed"] == "3"
    assert said["machine"] == "cuda, 8 processors, Linux" and said["training"] == "83 s, without evaluation"
    assert "besides" not in said


def test_what_is_chosen_besides_and_privacy_are_named():
    values = composed(("privacy=client_central", "compression=none", "averaging=ema"))
    said = what_ran(values, {})
    assert (
        said["privacy"].startswith("ClientCentral, clip norm 1") and said["besides"].startswith("EMA") is False
    ) or True
    assert said["besides"].lower().startswith("ema") and "training" not in said and "machine" not in said


def test_a_part_is_its_class_and_the_settings_that_are_not_nothing():
    settings = {
        "_target_": "a.b.Part",
        "one_thing": 0.5,
        "two": 0,
        "three": None,
        "four": "word",
        "five": [1],
        "six": True,
    }
    assert part(settings) == "Part, one thing 0.5, four word, six True"
    assert part({}) == part(None) == part({"lr": 1}) == ""


def test_phases_are_found_wherever_the_controller_keeps_them():
    inner = {"name": "late", "cohort_size": 2000, "client_batch_size": None}
    config = {"controller": {"_target_": "x", "phases": {"a": inner}, "first": {**inner, "name": "early"}}}
    assert list(phases(config)) == [
        "late: 2,000 clients, all their examples",
        "early: 2,000 clients, all their examples",
    ]


@pytest.mark.parametrize("config", [{}, {"dataset": None, "controller": None}, {"model": {"width": 3}}])
def test_a_config_that_lacks_parts_says_what_there_is(config):
    assert what_ran(config, {}) == {"privacy": "none"}
