"""Real processes that are killed in the middle of a run, and come back."""

import json
import os
import signal
import time

import pytest

from simulations.deployment.credentials import make_node_key
from simulations.deployment.federation import superlink, supernode
from tests.simulations.test_deployment import NODES, TINY, folders  # noqa: F401

ROUNDS = 14  # a SuperNode starts a process for every message


def rows(folder):
    file = folder / "rounds.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


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
