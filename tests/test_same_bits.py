"""Whole runs give the bits that they gave before the package was moved, and folders of before go on to the same end.

``golden/bits.json`` and ``golden/folders/`` were written before the move; see CONTRIBUTING, "Golden runs".
Bits are compared where the processor and torch are those that wrote them, and numbers to 1e-4 elsewhere.
"""

import json
import shutil
from pathlib import Path

import pytest

from tests.whole_runs import left, outcome, run

GOLDEN = Path(__file__).parent / "golden"
BASE = "dataset=digits population=20 cohort_size=4 client_batch_size=8 rounds=4 report=none".split()
OF_BEFORE = "noise_scale.decay=0.98 noise_scale.memory=0 learning_rate.max_growth=null".split()
"""What runs began with when the golden ones were written."""
PRIVATE = "privacy.noise_multiplier=1.0 privacy.target_epsilon=null server_optimizer=sgd".split()
TWO_PHASES = "controller=two_phase_switch controller.small.cohort_size=4 controller.large.cohort_size=8".split()
SWITCH = [*TWO_PHASES, "evaluate_every_rounds=2"]
RUNS = {
    "fused": ["executor=fused", *SWITCH, "server_optimizer.momentum=0.9"],
    "loop": ["executor=loop", *SWITCH, "model=cnn"],
    "vmap_local_steps": [
        "executor=vmap",
        "client_work=local_sgd",
        "client_work.steps=2",
        "client_work.epochs=null",
        "controller=fixed",
        "nodes=2",
    ],
    "halves_cosine": [
        "executor=fused",
        "noise_scale.halves=true",
        "noise_scale.cosine=true",
        "controller=adaptive",
        "controller.max_cohort_size=20",
    ],
    "lamb_drift": ["executor=fused", "server_optimizer=lamb", "partitioner=dirichlet", "controller=fixed"],
    "client_central": ["executor=fused", "controller=fixed", "privacy=client_central", *PRIVATE],
    "example_local": ["executor=fused", "controller=fixed", "privacy=example_local", *PRIVATE, "nodes=2"],
    "example_distributed": [
        "executor=ghost",
        "controller=fixed",
        "privacy=example_distributed",
        *PRIVATE,
        "cohort_size=8",
    ],
    "active_margin": [
        "executor=fused",
        "active=margin",
        "active.seed_labels=40",
        "active.labels_per_query=20",
        "active.queries=1",
        "controller=fixed",
    ],
    "faults": ["executor=fused", "faults=some", "nodes=4", "controller=fixed", "min_clients=1"],
    "krum": ["executor=loop", "aggregator=krum", "controller=fixed", "cohort_size=8"],
    "calibration": [
        "executor=loop",
        "metrics=calibration",
        "temperature=shared",
        "client_holdout=0.2",
        "loss=ce_sb_ece",
        *SWITCH,
    ],
}


def same(found, expected):
    """Equal bits where they were written on such a machine, and else equal within rounding that grows over rounds."""
    if found["machine"] == expected["machine"]:
        assert found == expected
    assert found["rows"] == pytest.approx(expected["rows"], rel=1e-4, abs=1e-6, nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_whole_run_has_the_same_bits(name, tmp_path):
    expected = json.loads((GOLDEN / "bits.json").read_text())
    same(outcome([*BASE, *OF_BEFORE, *RUNS[name]], tmp_path / "run"), expected[name])


@pytest.mark.parametrize("name", ["active", "local_sgd", "plain"])
def test_a_folder_of_0_1_goes_on_to_the_same_end(name, tmp_path):
    """To rounding only: norms are added up more exactly since."""
    found, expected = gone_on("0.1", name, tmp_path)
    assert {column: found["rows"][column] for column in expected["rows"]} == pytest.approx(expected["rows"], rel=1e-5)


@pytest.mark.parametrize("name", ["active", "local_sgd", "plain", "private"])
def test_a_folder_of_before_the_move_goes_on_bit_for_bit(name, tmp_path):
    """The config of the private one has the names of 0.1 in it."""
    same(*gone_on("0.2", name, tmp_path))


def test_a_private_folder_of_0_1_is_refused_in_one_line(tmp_path, capsys):
    shutil.copytree(GOLDEN / "folders" / "0.1" / "private", tmp_path / "private")
    assert run([f"resume={tmp_path / 'private'}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def gone_on(version, name, folder):
    """What a copy of a golden folder comes to, and what the whole run gave."""
    kept = GOLDEN / "folders" / version
    shutil.copytree(kept / name, folder / name)
    assert run([f"resume={folder / name}", "report=none"]) == 0
    return left(folder / name), json.loads((kept / f"{name}.json").read_text())
