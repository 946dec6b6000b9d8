"""``fedbatch advise`` and `fedbatch.advise` as a user meets them."""

import numpy as np
import polars as pl
import pytest
import yaml
from torch import nn

import fedbatch
from fedbatch.advising.probe import length
from fedbatch.cli.commands import run_command
from fedbatch.core.errors import ConfigError
from tests.whole_runs import run

DIGITS = ("dataset=digits", "population=20", "cohort_size=8", "client_batch_size=4", "model.width=8", "rounds=120")
TINY = (*DIGITS, "server_optimizer.lr=0.5")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_command_prints_and_writes_a_config_that_runs(tmp_path, capsys):
    words = [*TINY, "--minutes", "0.5", "--cost", "cloud=1,0.1,0,1e-6", "seed=3", "loss=brier"]
    assert run_command("advise", *words, "cohort_size=4", "controller=goodput", "controller.budget=1e6") == 0
    said = capsys.readouterr().out
    head, *lines = said.splitlines()
    assert head.startswith("to training_set_loss ") and max(map(len, lines[:9])) <= 80 and "…" not in said
    shown = [line.split()[0] for line in lines[2:9]]
    assert shown == ["rounds", "examples", "bytes", "lan", "wan", "yours", "cloud"]
    assert "lan: latency 1 ms, 125 MB/s down" in said and "8 clients a round, not cohort_size=4" in said
    written = (tmp_path / "advice.yaml").read_text()
    assert written.startswith("# Written by fedbatch advise.\n# For the cost cloud: ") and "#   wan: " in written
    values = yaml.safe_load(written)
    assert run(["--config-dir=.", "--config-name=advice", "rounds=2", "run_dir=out", "report=none"]) == 0
    ran = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert ran["seed"] == 3 and "Brier" in ran["loss"]["_target_"] and ran["controller"]["_target_"].endswith("Fixed")
    for key in ("cohort_size", "client_batch_size"):
        assert ran["controller"]["phase"][key] == ran[key] == values[key]
    (tmp_path / "advice.yaml").write_text("rounds: 3\n")
    assert run_command("advise", *words) == 2
    assert "advice.yaml is there and was not written by fedbatch advise" in capsys.readouterr().err
    assert (tmp_path / "advice.yaml").read_text() == "rounds: 3\n", "nothing of the user's is lost"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minutes", "0"], "--minutes: give a positive number"),
        (["--minutes", "soon"], "--minutes: give a positive number"),
        (["--cost", "cloud=1,2"], "cost cloud: give four numbers"),
        (["--cost", "cloud=0,0,0,0"], "not all 0"),
        (["--cost", "cloud=1,-1,0,0"], "none negative"),
        (["--cost", "cloud=1,nan,0,0"], "none negative"),
        (["--cost", "cloud"], "--cost: give NAME=ROUND,CLIENT,EXAMPLE,BYTE"),
        (["--cost", "wan=1,0,0,0"], "cost: give it a name of its own"),
        (["--cost", "a=1,0,0,0", "--cost", "a=2,0,0,0"], "--cost: a is given twice"),
        (["--for", "money"], "--for: there is no cost 'money'; choose from rounds"),
        (["--minuets", "2"], "unrecognized arguments: --minuets"),
        (["cohort_size=200"], "cohort_size (200) is larger than population"),
        (["cohort_sise=2"], "cohort_sise"),
        (["seed=1,2"], "seed=1,2 is several runs"),
        (["resume=runs/a"], "resume: a probe starts anew"),
        (["active=random"], "active: "),
        (["asynchronous=fedbuff"], "asynchronous: "),
    ],
)
def test_refusals_are_one_line_and_come_before_the_probe(tmp_path, capsys, words, message):
    assert run_command("advise", *DIGITS[:2], *words) == 2
    said = capsys.readouterr().err
    assert said.startswith("fedbatch: advise: ") and message in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_not_touched(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match="run_dir: mine is there"):
        fedbatch.advise(*TINY, run_dir="mine")


def test_too_few_minutes_name_those_that_are_enough():
    with pytest.raises(ConfigError, match="minutes: 1 are too few for 36 rounds .* give 3.4 or more"):
        length(30.0, (2.0, 0.5), 800, 1.0)
    rounds, every = length(600.0, (0.5, 10.0), 800, 10.0)  # dear evaluations take half of the time
    assert 540 <= rounds * 0.5 + rounds / every * 10 <= 620 and rounds / every >= 12
    assert length(120.0, (0.4, 15.0), 800, 2.0) == (225, 112)  # and where that is too dear, it is nearly left out


def test_a_rate_that_is_too_high_is_halved_once():
    advice = fedbatch.advise(*DIGITS, "server_optimizer.lr=2", minutes=0.5)
    assert advice.lr == 1 and "at server_optimizer.lr=2 " in advice.notes[0] and advice.run.name == "half"
    for rate, said in (("1e6", "above the 2.278"), ("1e30", "the probe diverged")):
        with pytest.raises(ConfigError, match=rf"server_optimizer\.lr: .*{said}.*; lower it and ask again"):
            fedbatch.advise(*DIGITS, f"server_optimizer.lr={rate}", minutes=0.5)


def test_local_steps_are_in_clients():
    advice = fedbatch.advise(*DIGITS, "client_work=local_sgd", "server_optimizer.lr=1", minutes=0.5)
    assert advice.found.unit == "clients" and advice.cap == 2
    assert {row.client_batch_size for row in advice.rows} == {4} and max(row.lr_factor for row in advice.rows) <= 2


def test_a_private_config_is_probed_without_and_not_written(tmp_path, capsys):
    words = [*DIGITS, "privacy=client_central", "privacy.target_epsilon=8"]
    assert run_command("advise", *words, "--minutes", "0.5") == 0
    said = capsys.readouterr().out
    assert f"fedbatch plan {' '.join(words)}" in said and "without privacy" in said
    assert not (tmp_path / "advice.yaml").exists(), "a config that has lost its privacy is not proposed"
    (ran,) = tmp_path.glob("runs/*/probe/config.yaml")
    assert not yaml.safe_load(ran.read_text())["privacy"]


def test_a_model_of_ones_own_on_data_from_a_csv_file(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 3)).round(4)
    label = np.where(x @ [1.0, -1.0, 0.5] + 0.3 * rng.normal(size=2000) > 0, "yes", "no")
    table = {name: x[:, i] for i, name in enumerate("abc")} | {"bought": label}
    pl.DataFrame(table).write_csv(tmp_path / "rows.csv")
    advice = fedbatch.advise(
        "dataset=hugging_face",
        "population=40",
        "cohort_size=10",
        "rounds=150",
        "server_optimizer.lr=0.3",
        model=lambda: nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)),
        minutes=0.5,
        costs={"cloud": (1, 0.1, 0, 1e-6)},
        **{"dataset.source": "rows.csv", "dataset.input_column": ["a", "b", "c"], "dataset.label_column": "bought"},
    )
    rows = {row.cost.name: row for row in advice.rows}
    assert rows["rounds"].batch > rows["examples"].batch and rows["cloud"].amount > 0
    assert any(word.startswith("client_batch_size=") for word in advice.proposed(rows["wan"]))
