"""Real processes that are killed in the middle of a run and come back, and those that nobody lets in."""

import json
import os
import signal
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta

import pytest

from fedbatch.core.errors import RunFailedError
from simulations.deployment.credentials import make_certificates, make_node_key
from simulations.deployment.federation import federation_on, link, superlink, supernode
from tests.simulations.test_deployment import NODES, TINY, folders  # noqa: F401

ROUNDS = 14  # a SuperNode starts a process for every message


def rows(folder):
    file = folder / "rounds.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def status(folder):
    return json.loads((folder / "summary.json").read_text())["status"]


def wait_for(condition, seconds=240.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def online(federation):
    return [node["status"] for node in federation.flwr("supernode", "list", "loopback")["nodes"]].count("online")


@pytest.mark.slow
@pytest.mark.skipif("FEDBATCH_LONG" not in os.environ, reason="six minutes of waiting: set FEDBATCH_LONG=1")
def test_a_supernode_that_is_killed_is_missed_and_taken_back(folders, tmp_path):  # noqa: F811
    private, logs = folders
    folder = tmp_path / "run"
    options = f"{TINY.replace('rounds=2', f'rounds={ROUNDS}')} round_timeout_seconds=40 run_dir={folder}"
    with superlink(private, logs, secure=True) as federation:
        keys = [make_node_key(private, f"supernode-{index}") for index in range(2)]
        for key in keys:
            federation.register(key)
        with supernode(federation, "supernode-0", NODES[0], keys[0]):
            with supernode(federation, "supernode-1", NODES[1], keys[1]) as node:
                run = federation.begin(options)
                wait_for(lambda: len(rows(folder)) >= 2)
                os.killpg(node.pid, signal.SIGKILL)
            wait_for(lambda: online(federation) == 1)  # until then its key is taken
            with supernode(federation, "supernode-1-again", NODES[1], keys[1]):
                federation.wait(run, timeout=500)
    sizes = [row["cohort_size"] for row in rows(folder)]
    assert len(sizes) == ROUNDS and min(sizes) < 4 and sizes[-3:] == [4] * 3


@pytest.mark.slow
@pytest.mark.skipif("FEDBATCH_LONG" not in os.environ, reason="three minutes: set FEDBATCH_LONG=1")
def test_a_superlink_that_is_killed_comes_back_with_its_nodes_and_the_run_goes_on_from_its_checkpoint(
    folders,  # noqa: F811
    tmp_path,
):
    private, logs = folders
    folder, database = tmp_path / "run", ("--database", str(private / "federation.db"))
    options = f"{TINY.replace('rounds=2', 'rounds=4')} checkpoint_every_rounds=1 run_dir={folder}"
    federation = federation_on(private, logs, secure=True)
    with ExitStack() as nodes:
        with link(federation, "superlink", *database) as server:
            for index in range(2):
                key = make_node_key(private, f"supernode-{index}")
                federation.register(key)
                nodes.enter_context(supernode(federation, f"supernode-{index}", NODES[index], key))
            federation.begin(options)
            wait_for(lambda: len(rows(folder)) >= 2)
            server.kill()
            server.wait()  # what has ended and nobody has looked at still counts as there
            wait_for(lambda: status(folder) == "interrupted", 60)  # nobody waits for a SuperLink to come back
            wait_for(lambda: not (folder / "run.lock").exists(), 10)
        with link(federation, "superlink-again", *database):
            wait_for(lambda: online(federation) == 2)  # keys are registered still
            federation.run(f"{options} resume={folder}", timeout=200)
    assert [row["cohort_size"] for row in rows(folder)] == [4] * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"lifetime": timedelta(minutes=-1)}, "certificate has expired"),
        ({"address": "10.1.2.3"}, "certificate is not valid for '127.0.0.1'"),
        ({}, "certificate verify failed"),
    ],
    ids=["expired", "for another host", "by another authority"],
)
def test_a_supernode_ends_at_once_where_it_cannot_trust_the_superlink(folders, tmp_path, made, said):  # noqa: F811
    private, logs = folders
    federation = federation_on(private, logs, secure=True)
    (tmp_path / "other").mkdir()
    other = make_certificates(tmp_path / "other", **made)
    key = make_node_key(private, "supernode-0")
    with link(replace(federation, certificates=other), "superlink"):
        trusting = replace(federation, certificates=other) if made else federation
        start = time.monotonic()
        with supernode(trusting, "supernode-0", NODES[0], key) as node:
            assert node.wait(60) == 1 and time.monotonic() - start < 60
        assert said in (logs / "supernode-0.log").read_text()
        with pytest.raises(RunFailedError, match="Connection to the SuperLink is unavailable"):
            federation.begin("rounds=1")
