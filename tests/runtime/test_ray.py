"""Runs on Ray as a user meets them; what does not start Ray is quick."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fedbatch.core.errors import ConfigError
from fedbatch.runtime import ray

ROOT = Path(__file__).parents[2]
TINY = "dataset=digits population=20 cohort_size=4 model.width=8 controller=fixed rounds=3 nodes=2".split()


def start(*arguments, cwd, home):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home), "FEDBATCH_CACHE": str(cwd / "cache")}
    environment["RAY_ADDRESS"] = "127.0.0.1:1"  # of a cluster that is gone: a run that starts its own must not care
    return subprocess.Popen(
        [sys.executable, "-m", "fedbatch", *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments, cwd):
    home = cwd / "home"
    home.mkdir(exist_ok=True)
    process = start(*arguments, cwd=cwd, home=home)
    try:
        output, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    return process.returncode, output, errors


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"cpus_per_node": 0.0}, r"runtime.cpus_per_node must be above 0 \(got 0\)"),
        ({"gpus_per_node": -1.0}, r"runtime.gpus_per_node must not be negative \(got -1\)"),
        ({"address": "nonsense"}, r"runtime.address must be null, auto or host:port \(got nonsense\)"),
        ({"address": "127.0.0.1:ray"}, r"runtime.address must be null, auto or host:port"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, line):
    with pytest.raises(ConfigError, match=line):
        ray.Ray(**{"cpus_per_node": 1.0, "gpus_per_node": 0.0, "address": None, **arguments})


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(ray, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'fedbatch\[ray\]'"):
        ray.Ray(1.0, 0.0, None)


def test_the_root_cause_is_one_line():
    outer = RuntimeError("Ending simulation.")
    outer.__cause__ = ValueError("no space\nleft")
    assert ray.root_cause(outer) == "no space"
    assert ray.root_cause(KeyError()) == "KeyError"


def test_a_simulation_that_breaks_down_ends_the_run(monkeypatch):
    def simulate(server_app, client_app, num_nodes, resources):
        ray.Thread(target=server_app, args=("the grid", None), daemon=True).start()  # as Flower does
        raise RuntimeError("Ending simulation.") from OSError("a worker died")

    monkeypatch.setattr(ray, "simulate", simulate)
    with pytest.raises(ray.RunFailedError, match="Ray: a worker died"), ray.simulation(None, 2, {}) as grid:
        assert grid == "the grid"
        time.sleep(60)  # a ServerApp that waits for answers


def test_somebody_else_at_the_address_is_told_from_ray(monkeypatch):
    monkeypatch.setattr(ray, "CONNECT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(OSError, match="what answers there is no Ray"):
        ray.greet(f"127.0.0.1:{silent.getsockname()[1]}")


PRIVATE = "privacy=client_central privacy.noise_multiplier=1.0 privacy.target_epsilon=null executor=fused".split()
KEEPING = "client_work=scaffold executor=vmap cohort_size=15 rounds=6".split()  # actors change, what clients keep stays


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], PRIVATE, KEEPING], ids=["plain", "private", "keeping"])
def test_ray_and_local_arrive_at_the_same_bits(tmp_path, more):
    pytest.importorskip("ray")
    told = {}
    for where in ("local", "ray"):
        code, output, errors = run(*TINY, *more, f"runtime={where}", f"run_dir={where}/run", cwd=tmp_path)
        assert (code, errors) == (0, "")
        own = ("executor=", "run folder", "report:")  # what was measured, and where things lie
        told[where] = [line for line in output.splitlines() if not any(word in line for word in own)]
    assert told["ray"] == told["local"]
    local, on_ray = tmp_path / "local/run", tmp_path / "ray/run"
    assert summary(on_ray)["params_sha256"] == summary(local)["params_sha256"]
    assert {path.name for path in on_ray.iterdir()} == {path.name for path in local.iterdir()}
    assert not (tmp_path / "home" / ".flwr").exists()


@pytest.mark.slow
def test_a_node_that_asks_too_much_is_one_line_and_exit_code_2(tmp_path):
    pytest.importorskip("ray")
    code, output, errors = run(*TINY, "runtime=ray", "runtime.cpus_per_node=4000", "run_dir=out", cwd=tmp_path)
    assert (code, output, errors.count("\n")) == (2, "", 1) and not (tmp_path / "out").exists()
    assert errors.startswith("fedbatch: runtime: no machine has the 4000 CPUs and 0 GPUs of a node")


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_line_and_exit_code_2(tmp_path):
    pytest.importorskip("ray")
    code, output, errors = run(*TINY, "runtime=ray", "runtime.address=127.0.0.1:1", cwd=tmp_path)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert errors.startswith("fedbatch: runtime.address=127.0.0.1:1: ")


@pytest.mark.slow
def test_a_ray_that_cannot_start_is_one_line_and_exit_code_1(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_TMPDIR", "/proc/nowhere")
    code, output, errors = run(*TINY, "runtime=ray", "run_dir=out", cwd=tmp_path)
    assert (code, output, errors.count("\n")) == (1, "", 1) and "Traceback" not in errors
    assert (
        errors.startswith("fedbatch: Ray cannot start: [Errno 2] No such file or directory")
        and "runtime=local" in errors
    )


@pytest.mark.slow
def test_a_worker_that_is_killed_is_missed_for_a_round_and_started_again(tmp_path):
    pytest.importorskip("ray")
    asking = ("rounds=100000", "cohort_size=20", "checkpoint_every_rounds=1")
    process = start(*TINY, *asking, "runtime=ray", "run_dir=out", cwd=tmp_path, home=tmp_path)
    record = tmp_path / "out" / "rounds.jsonl"

    def rows():
        return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []

    def wait_for(condition):
        deadline = time.monotonic() + 120
        while not condition(rows()):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.5)

    try:
        wait_for(lambda found: len(found) > 3)
        workers = [
            c for c in psutil.Process(process.pid).children(recursive=True) if "ClientAppActor" in c.cmdline()[0]
        ]
        workers[0].kill()
        wait_for(lambda found: any(row["rejected_replies"] for row in found))
        wait_for(lambda found: [row["cohort_size"] for row in found[-5:]] == [20] * 5)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in errors
    assert "was left out: The actor" in output and output.count("\n") < 20


@pytest.mark.slow
def test_a_run_that_fails_on_ray_fails(tmp_path):
    pytest.importorskip("ray")
    code, _, errors = run(*TINY, "runtime=ray", "server_optimizer.lr=1e38", "run_dir=out", cwd=tmp_path)
    assert code == 1 and summary(tmp_path / "out")["status"] == "failed"
    assert errors.splitlines()[-1].startswith("fedbatch: no client has a finite update") and "Traceback" not in errors


@pytest.mark.slow
def test_an_interrupted_run_ends_and_another_runtime_goes_on_with_it(tmp_path):
    pytest.importorskip("ray")
    endless = ("rounds=100000", "checkpoint_every_rounds=1")
    process = start(*TINY, "runtime=ray", *endless, "run_dir=out", cwd=tmp_path, home=tmp_path)
    record = tmp_path / "out" / "rounds.jsonl"
    deadline = time.monotonic() + 120
    while not (record.exists() and len(record.read_text().splitlines()) > 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors.startswith("fedbatch: interrupted")
    done = summary(tmp_path / "out")
    assert done["status"] == "interrupted"
    code, *_ = run("resume=out", "runtime=local", f"rounds={done['rounds'] + 2}", cwd=tmp_path)
    assert code == 0 and summary(tmp_path / "out")["status"] == "finished"


@pytest.mark.parametrize("error", [RuntimeError("no room"), Exception("no room\nand more"), AssertionError("no room")])
def test_whatever_ray_raises_at_its_start_is_one_line(monkeypatch, error):
    theirs = pytest.importorskip("ray")

    def fails(**_):
        raise error

    monkeypatch.setattr(theirs, "init", fails)
    with pytest.raises(ray.RunFailedError, match=r"^Ray cannot start: no room; look into .* or use runtime=local$"):
        ray.Ray(1.0, 0.0, None)._start()
