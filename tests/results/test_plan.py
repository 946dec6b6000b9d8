"""`fedbatch.plan` and ``fedbatch plan``: what is shown, written and refused."""

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

import fedbatch
from fedbatch.cli.commands import run_command
from fedbatch.config.compose import composed
from fedbatch.core.errors import ConfigError
from fedbatch.privacy import planning
from fedbatch.results import plan
from fedbatch.results.plan_table import conclusion, notes, shown

TINY = ("dataset=digits", "population=20", "model.width=8", "rounds=8")


@pytest.fixture
def quick(monkeypatch):
    """Two numbers of rounds in the place of five."""
    monkeypatch.setattr(planning, "TIMES", (0.25, 1.0))


@pytest.fixture(scope="module")
def central():
    return fedbatch.plan("privacy=client_central", *TINY, "cohort_size=10", "privacy.target_epsilon=4")


def test_the_plan_is_a_value_with_rows(central):
    assert (central.unit, central.units, central.rounds, central.target_epsilon) == ("client", 20, 8, 4.0)
    assert central.configured.cohort_size == 10 and central.largest.cohort_size == 20
    frame = pl.DataFrame(central.rows)
    assert set(frame["epsilon"]) == {4.0} and set(frame["delta"]) == {1e-5}
    assert sorted(frame["rounds"].unique()) == [2, 4, 8, 16, 32]
    assert frame.filter(pl.col("rounds") == 8)["cohort_size"].to_list() == [1, 2, 5, 10, 20]
    # More clients are more accurate at the same number of rounds, and fewer rounds at the same number of clients.
    for by, along in (("rounds", "cohort_size"), ("cohort_size", "rounds")):
        for _, group in frame.group_by(by):
            noise = group.sort(along)["mean_noise"].diff().drop_nulls()
            assert (noise < 0).all() if along == "cohort_size" else (noise > 0).all()


def test_a_quarter_of_the_rounds_is_cheaper_and_quieter(central):
    assert central.shortest.rounds == 2 and central.shortest.cohort_size == central.choice.cohort_size
    assert central.shortest.mean_noise < central.choice.mean_noise
    assert len(conclusion(central).splitlines()) == 1 and central.caveats == ()
    assert any("N sqrt(epsilon / T)" in line for line in notes(central))
    assert any("privacy noise is above sampling noise at every batch" in line for line in notes(central))


def test_a_known_spread_ends_the_choice_where_sampling_noise_is_larger(quick):
    asked = ("privacy=client_central", *TINY, "cohort_size=2", "privacy.target_epsilon=100", "model.width=1")
    loud, unknown = fedbatch.plan(*asked, norm=1.0), fedbatch.plan(*asked)
    assert unknown.balanced == loud.balanced is not None
    assert unknown.reason != loud.reason == "its privacy noise is below its sampling noise"
    assert loud.choice.batch == max(loud.balanced.batch, 2) < unknown.choice.batch
    assert fedbatch.plan(*asked, norm=0.001).balanced is None


def test_python_values_and_an_adaptive_controller(quick):
    found = fedbatch.plan(
        "controller=noise_scale_switch", *TINY, "controller.large.cohort_size=8", privacy="example_local", cohort_size=4
    )
    assert found.unit == "example" and "controller=fixed" in found.caveats[0]
    assert {"privacy=example_local", "controller=fixed"} < set(found.overrides)
    assert "controller=noise_scale_switch" not in found.overrides
    assert not any(word.startswith("controller.large") for word in found.overrides)
    assert composed(found.overrides)["controller"]["_target_"] == "fedbatch.controllers.Fixed"


def test_the_command_prints_draws_and_writes_a_config_that_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    words = ("privacy=client_central", "--norm", "0.5", *TINY, "cohort_size=10", "server_optimizer.lr=0.5")
    assert run_command("plan", *words) == 0
    said = capsys.readouterr().out
    table = [line for line in said.splitlines() if "│" in line]
    assert max(map(len, table)) <= 100 and len(said.splitlines()) <= 25 and "…" not in said
    assert "(now" in said and "take)" in said
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    written = (tmp_path / "plan.yaml").read_text()
    assert written.startswith("# Written by fedbatch plan.\n# ") and "#   fedbatch privacy=client_central" in written
    values = yaml.safe_load(written)
    done = composed(next(line for line in written.splitlines() if line.startswith("#   fedbatch ")).split()[2:])
    assert done["cohort_size"] == values["cohort_size"] and done["rounds"] == values["rounds"] == 8
    assert done["server_optimizer"]["lr"] == values["server_optimizer"]["lr"] == 0.5
    (tmp_path / "plan.yaml").write_text("rounds: 3\n")
    assert run_command("plan", *words) == 2
    assert "plan.yaml is there and was not written by fedbatch plan" in capsys.readouterr().err
    assert (tmp_path / "plan.yaml").read_text() == "rounds: 3\n", "nothing of the user's is lost"


@pytest.mark.slow
def test_the_written_config_runs_as_it_stands(tmp_path):
    def command(*words):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        arguments = [sys.executable, "-m", "fedbatch", *words]
        return subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    assert command("plan", "privacy=example_local", *TINY, "seed=3", "loss=brier").returncode == 0
    done = command("--config-dir=.", "--config-name=plan", "run_dir=out", "report=none")
    assert done.returncode == 0, done.stderr
    values, summary = (yaml.safe_load((tmp_path / name).read_text()) for name in ("plan.yaml", "out/summary.json"))
    ran = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert summary["rounds"] == 8 and summary["epsilon"] <= 8
    assert (ran["seed"], ran["client_batch_size"]) == (3, values["client_batch_size"])
    assert "Brier" in ran["loss"]["_target_"] and "ExampleLocal" in ran["privacy"]["_target_"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "add privacy="),
        (["privacy=client_central", "privacy.target_epsilon=null", "privacy.noise_multiplier=1"], "target_epsilon is"),
        (["privacy=client_central", "--norm", "x"], "--norm: give a positive number"),
        (["privacy=client_central", "--run", "nowhere"], "nowhere: no run in it"),
        (["privacy=client_central", "--norm", "1", "--run", "nowhere"], "give one of them"),
        (["privacy=client_central", "--nrom", "1"], "unrecognized arguments: --nrom"),
        (["privacy=client_central", "privacy.delta=0.5"], "privacy.delta must be in"),
        (["privacy=client_central", "cohort_size=200"], "cohort_size (200) is larger than population"),
    ],
)
def test_refusals_are_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert run_command("plan", *words, "dataset=digits") == 2
    said = capsys.readouterr().err
    assert said.startswith("fedbatch: plan: ") and message in said and said.count("\n") == 1
    assert not list(tmp_path.glob("plan.*"))


def test_the_spread_that_a_run_measured(tmp_path, monkeypatch):
    def spread(counted, trace, unit):
        """Of a record of five rounds of 4 clients and 64 examples, of which the later half counts."""
        shared = {"noise_scale_unit": counted, "cohort_size": 4, "global_batch": 64}
        rows = [{**shared, "round_trace": each} for each in (9.0, 9.0, trace, float("nan"), trace)]
        (tmp_path / "rounds.jsonl").touch()
        monkeypatch.setattr(plan, "each_row", lambda _: iter(rows))
        return plan.measured_spread(tmp_path, unit)

    assert spread("examples", 4.0, "example") == pytest.approx(2.0)
    assert spread("examples", 4.0, "client") == pytest.approx(2.0 / 4), "the mean of 16 examples"
    assert spread("clients", 4.0, "client") == pytest.approx(2.0)
    with pytest.raises(ConfigError, match="noise scale is of clients"):
        spread("clients", 4.0, "example")
    with pytest.raises(ConfigError, match="not above zero"):
        spread("clients", -1.0, "client")
    monkeypatch.setattr(plan, "each_row", lambda _: iter([{"round_trace": None}]))
    with pytest.raises(ConfigError, match="no round_trace"):
        plan.measured_spread(tmp_path, "client")


def test_many_batches_are_thinned_to_those_that_are_named(quick):
    many = fedbatch.plan("privacy=example_local", *TINY, "population=2", "cohort_size=1", "client_batch_size=400")
    assert len(many.here) >= 6 and len(shown(many)) <= 10
    assert {many.configured, many.choice, many.largest} <= set(shown(many))


def test_too_few_units_are_said_and_enough_are_not(quick):
    from fedbatch.results.plan_table import notes

    few = fedbatch.plan("privacy=client_central", "privacy.target_epsilon=1", "population=6", "rounds=200")
    assert few.largest.mean_noise >= few.clip_norm
    (said,) = [line for line in notes(few) if line.startswith("Warning: ")]
    assert said.startswith("Warning: 6 clients are too few for epsilon 1: even with all of them")
    assert said.endswith("or protect examples (privacy=example_central).")
    many = fedbatch.plan("privacy=client_central", "privacy.target_epsilon=8")
    assert not [line for line in notes(many) if line.startswith("Warning: ")]
