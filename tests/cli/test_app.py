"""The command as a user meets it, in a process of its own."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

TINY = "dataset=digits population=20 cohort_size=4 model.width=8 controller=fixed rounds=3 report=none".split()


def fedbatch(*arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "fedbatch", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    after = os.times()  # processor seconds: a busy machine must not fail a test
    return done, after.children_user + after.children_system - before.children_user - before.children_system


def test_a_run_ends_with_its_table_folder_and_report(tmp_path):
    done, _ = fedbatch(*TINY, "report=html", "run_dir=out", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    folder, report = done.stdout.splitlines()[-2:]
    assert "accuracy" in done.stdout and folder == f"run folder: {tmp_path / 'out'}"
    assert report.startswith(f"report: {Path('out', 'report.html')} (")
    left = {path.name for path in (tmp_path / "out").iterdir()}
    files = "config.yaml noise_scale.png report.html rounds.jsonl rounds.parquet run.json summary.json "
    files += "classes.parquet confusion.parquet"
    assert left == {"checkpoints", *files.split()}


@pytest.mark.slow
def test_resume_goes_on_and_refuses_to_become_another_run(tmp_path):
    fedbatch(*TINY, "run_dir=out", cwd=tmp_path)
    done, _ = fedbatch("resume=out", "rounds=5", cwd=tmp_path)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert done.returncode == 0 and summary["rounds"] == 5
    done, _ = fedbatch("resume=out", "model.width=16", cwd=tmp_path)
    assert done.returncode == 2 and "model.width cannot change when a run is resumed" in done.stderr
    done, _ = fedbatch("resume=nowhere", cwd=tmp_path)
    assert done.returncode == 2 and "give the folder of an earlier run" in done.stderr


def test_sweep(tmp_path):
    done, _ = fedbatch(*TINY, "-m", "seed=0,1", "run_dir=sweep", cwd=tmp_path)
    assert done.returncode == 0
    seeds = [json.loads((tmp_path / "sweep" / str(i) / "summary.json").read_text())["seed"] for i in range(2)]
    assert seeds == [0, 1]


def test_a_sweep_that_is_run_again_leaves_alone_what_is_finished(tmp_path):
    sweep = (*TINY, "-m", "run_dir=sweep")
    fedbatch(*sweep, "seed=0", cwd=tmp_path)
    record = tmp_path / "sweep" / "0" / "rounds.jsonl"
    before = record.stat().st_mtime_ns
    done, _ = fedbatch(*sweep, "seed=0,1", cwd=tmp_path)
    assert "sweep/0: finished before, left as it is" in done.stdout and "run 2 of 2: seed=1\n" in done.stdout
    assert record.stat().st_mtime_ns == before and (tmp_path / "sweep" / "1" / "summary.json").is_file()
    done, _ = fedbatch(*sweep, "seed=2,0", "threads=2", cwd=tmp_path)  # renumbered; threads make no other run
    assert done.stdout.count("finished before") == 1
    assert record.stat().st_mtime_ns == before and len(list(tmp_path.glob("sweep/0-*/summary.json"))) == 1


@pytest.mark.slow
def test_what_one_run_of_a_sweep_is_refused_does_not_stop_the_others(tmp_path):
    done, _ = fedbatch(*TINY, "-m", "run_dir=sweep", "population=2,20", cwd=tmp_path)
    which, why = done.stderr.splitlines()
    assert done.returncode == 2 and "population=2'" in which and why.startswith("fedbatch: cohort_size (4)")
    assert (tmp_path / "sweep" / "1" / "summary.json").is_file() and not (tmp_path / "sweep" / "0").exists()


@pytest.mark.slow
def test_runs_side_by_side_and_a_search(tmp_path):
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done, _ = fedbatch(*TINY, *launcher, "seed=0,1", "-m", "run_dir=sweep", cwd=tmp_path)
    assert done.returncode == 0 and len(list(tmp_path.glob("sweep/*/summary.json"))) == 2
    small = [option for option in TINY if not option.startswith("controller")]
    done, _ = fedbatch(*small, "experiment=search", "hydra.sweeper.n_trials=2", "-m", "run_dir=search", cwd=tmp_path)
    assert done.returncode == 0
    assert len(list(tmp_path.glob("search/*/summary.json"))) == 2
    assert "best_value" in (tmp_path / "search" / "optimization_results.yaml").read_text()


@pytest.mark.slow
def test_a_run_that_diverges_is_one_line_and_the_rest_of_the_sweep_goes_on(tmp_path):
    done, _ = fedbatch(*TINY, "-m", "server_optimizer.lr=1e38,0.1", "run_dir=sweep", cwd=tmp_path)
    assert done.returncode == 1 and "fedbatch: no client has a finite update: training has diverged" in done.stderr
    assert "Traceback" not in done.stderr
    states = [json.loads((tmp_path / "sweep" / str(i) / "summary.json").read_text())["status"] for i in range(2)]
    assert states == ["failed", "finished"]


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("ronds=3", "fedbatch: unknown key 'ronds'; did you mean rounds?"),
        ("model.widht=3", "fedbatch: unknown key 'model.widht'; did you mean model.width?"),
        ("privacy.clip_norm=1", "fedbatch: privacy.clip_norm: the chosen privacy has no such key; choose another with"),
        ("task.standardise=true", "fedbatch: task.standardise: the chosen task has no such key; choose another with"),
        (
            "cohort_size=1000",
            "fedbatch: cohort_size (1000) is larger than population (100); lower it or raise population",
        ),
        ("rounds=abc", "fedbatch: rounds must be a whole number (got 'abc')"),
        ("seed=null", "fedbatch: seed must be a whole number (got null)"),
        ("noise_scale.halves=maybe", "fedbatch: noise_scale.halves must be true or false (got 'maybe')"),
        ("start_skip=5", "fedbatch: start_skip must be a list (got 5)"),
        ("target_value=high", "fedbatch: target_value must be a number or null (got 'high')"),
        ("model.width=0", "fedbatch: model.width must be in [1, 1e6] (got 0)"),
        ("dataset=mnst", "fedbatch: dataset=mnst does not exist; choose from"),
        ("rounds", "fedbatch: 'rounds' is no setting; write key=value, e.g. rounds=100"),
        ("rounds=1,2", "fedbatch: rounds=1,2 is several runs: add -m, as in fedbatch -m rounds=1,2"),
        ("lr=0.1", "fedbatch: unknown key 'lr'; here it is server_optimizer.lr"),
        ("num_clients=9", "fedbatch: unknown key 'num_clients'; here it is population"),
        ("experiment=nope", "fedbatch: experiment=nope does not exist; choose from critical_batch_size"),
        ("controller.large=null", "fedbatch: controller.large must be fedbatch.controllers.phase.Phase (got None)"),
        ("--rounds=3", "fedbatch: --rounds=3: settings have no dashes; write rounds=3"),
        ("model.width=${oops", "fedbatch: a value cannot be read (mismatched input '{' expecting <EOF>); close each"),
        ("hydra.run.dir=x", "fedbatch: hydra.run.dir=x: the folder is called run_dir here; write run_dir=x"),
        ("device=gpu", "fedbatch: device must be cpu, cuda, cuda:1 (a number) or auto (got 'gpu')"),
        ("client_work=true", "fedbatch: client_work=true: client_work needs a choice: diloco, ditto"),
        ("dataset=null", "fedbatch: dataset=null: dataset needs a choice: arrays, breast_cancer, digits"),
        ("run_dir=", "fedbatch: run_dir must name a folder (got nothing)"),
        (f"run_dir={__file__}", f"fedbatch: run_dir: {__file__} is a file; give a folder"),
        (f"resume={__file__}", f"fedbatch: resume: {__file__} is a file; give a folder"),
        ("model.width=${nope}", "fedbatch: model.width: Interpolation key 'nope' not found"),
        (
            "loss._target_=mine.focal",
            "fedbatch: loss._target_=mine.focal cannot be imported: there is no module 'mine' in",
        ),
        (
            "controller.small.client_work=1e308",
            "fedbatch: controller: client_work of phase 'small' is a float, which has",
        ),
        (
            "runtime._target_=builtins.dict",
            "fedbatch: runtime: what builtins.dict gives is a dict, which has no __call__",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, argument, line):
    done, _ = fedbatch(argument, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir()) or not list((tmp_path / "runs").iterdir())


def test_a_run_that_cannot_go_on_is_one_line_and_exit_code_1(tmp_path):
    done, _ = fedbatch("controller=fixed", "rounds=2", "faults=some", "faults.not_finite=1", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    line = "fedbatch: no node gave a valid answer in round 0: node 2 (clients 5 to 96): update_sum has values"
    assert done.stderr.startswith(line)


def test_a_folder_beside_the_one_that_goes_on_is_refused(tmp_path):
    done, _ = fedbatch("resume=a", "run_dir=b", cwd=tmp_path)
    assert done.returncode == 2 and "run_dir: resume=a goes on in its own folder; leave run_dir out" in done.stderr


def test_help_is_quick_and_imports_nothing_heavy(tmp_path):
    done, seconds = fedbatch("--help", cwd=tmp_path)
    assert done.returncode == 0 and "fedbatch -m seed=0,1,2" in done.stdout and "noise_scale_switch" in done.stdout
    assert seconds < 2
    by_hydra, _ = fedbatch("--help", "rounds=1", cwd=tmp_path)
    assert done.stdout.split() == by_hydra.stdout.split()
    code = "import sys; import fedbatch.cli.app; print([m for m in ('torch', 'flwr', 'polars') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


NAMES = ["[/a]", "[red]", "$x^", "a_{", "<b>", "über 1"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_and_never_obeyed(tmp_path, name):
    phase = f"controller.phase.name='{name}'"
    tiny = ("dataset=digits", "population=20", "cohort_size=4", "model.width=8", "controller=fixed", "rounds=1")
    done, _ = fedbatch(*tiny, phase, f"run_dir='{name.replace('/', '')} run'", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert name in done.stdout and f"run folder: {tmp_path / name.replace('/', '')} run" in done.stdout


def test_what_nobody_foresaw_is_one_line_and_a_file(tmp_path, monkeypatch, capsys):
    from fedbatch.cli import app

    def crash():
        raise ZeroDivisionError("of\ntwo lines")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "_main", crash)
    monkeypatch.setattr("sys.argv", ["fedbatch", "rounds=1"])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 1
    told = "fedbatch: internal error, ZeroDivisionError: of two lines; where it happened is in fedbatch-error.log\n"
    assert capsys.readouterr().err == told and "in crash" in (tmp_path / "fedbatch-error.log").read_text()


def test_version_is_that_of_the_package(tmp_path):
    done, _ = fedbatch("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"fedbatch {metadata.version('fedbatch')}\n")


def test_a_trained_model_is_scored_and_exported(tmp_path):
    assert fedbatch(*TINY, "run_dir=out", cwd=tmp_path)[0].returncode == 0
    done, _ = fedbatch("evaluate", "out", "metrics=calibration", cwd=tmp_path)
    scores, summary = json.loads(done.stdout), json.loads((tmp_path / "out/summary.json").read_text())
    assert scores["test_accuracy"] == summary["test_accuracy"] and "test_ece" in scores and done.stderr == ""
    done, _ = fedbatch("export", "out", "m.safetensors", cwd=tmp_path)
    assert done.stdout.startswith("m.safetensors: 0.0") and (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["evaluate"], "fedbatch: evaluate: give the folder of a run"),
        (["evaluate", "nowhere"], "fedbatch: evaluate: nowhere has no config.yaml"),
        (["export", "nowhere"], "fedbatch: export: give the folder of a run and a file"),
        (["export", "nowhere", "m.pt"], "fedbatch: export: nowhere has no config.yaml"),
    ],
)
def test_a_command_that_cannot_is_one_line_and_exit_code_2(tmp_path, arguments, line):
    done, _ = fedbatch(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith(line) and done.stderr.count("\n") == 1
