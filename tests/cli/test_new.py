"""``fedbatch new``: what it writes runs as it is, and nothing is written over."""

import os
import shlex
import subprocess
import sys

import polars as pl
import pytest

from fedbatch.cli.commands import run_command
from fedbatch.cli.project import new


def command(folder, *words):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def test_its_first_experiment_runs(tmp_path):
    paths = new(folder := tmp_path / "mine")
    assert all(path.is_file() for path in paths) and (folder / "README.md").is_file()
    words = ("-m", "fedbatch", "--config-dir", "conf", "experiment=first", "rounds=3", "report=none")
    done = command(folder, *words)
    assert done.returncode == 0, done.stderr
    assert pl.read_parquet(folder / "runs/first/rounds.parquet").height == 3


@pytest.mark.slow
def test_its_own_tests_pass_and_its_readme_is_true(tmp_path):
    new(folder := tmp_path / "mine")
    done = command(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout
    rows = [f"{20 + i % 60},{i % 7},{i % 2},h{i % 12}" for i in range(240)]
    (folder / "my.csv").write_text("\n".join(["age,income,outcome,hospital", *rows]) + "\n")
    for line in (folder / "README.md").read_text().replace("\\\n", " ").splitlines():
        if line.startswith("fedbatch "):
            again = ("overwrite=true",) * ("--config" in line)
            done = command(folder, "-m", *shlex.split(line, comments=True), *again)
            assert done.returncode == 0, (line, done.stderr)


def test_what_is_there_is_left_alone(tmp_path, capsys):
    (folder := tmp_path / "mine").mkdir()
    (folder / "data.py").write_text("mine")
    assert run_command("new", str(folder)) == 2
    assert "is there already" in capsys.readouterr().err
    assert (folder / "data.py").read_text() == "mine" and len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("words", [(), ("a", "b")])
def test_one_folder_is_asked_for(words, capsys):
    assert run_command("new", *words) == 2
    assert "fedbatch new my_project" in capsys.readouterr().err
