"""What a round needs beside what a run holds anyway, in sizes of the model."""

import json
import subprocess
import sys

import pytest

ROUND = """
import gc, json, os, sys, threading, time
import fedbatch
from fedbatch.server import rounds
from fedbatch.setup import device

device.keep_freed_memory = lambda: None  # freed memory goes back, so that it is not counted
run_round, found = rounds.run_round, []

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def watched(server, state):
    gc.collect()
    rest, seen, done = resident(), [0], threading.Event()
    def watch():
        while not done.wait(0.0005):
            seen.append(resident())
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        return run_round(server, state)
    finally:
        done.set()
        thread.join()
        found.append((max(seen) - rest) / (4 * state.params.numel()))

rounds.run_round = watched
fedbatch.run(*sys.argv[1:])
print(json.dumps(found[1:]))  # the first also compares executors
"""
SMALL = (
    "model.width=25000 rounds=4 controller=fixed cohort_size=4 client_batch_size=4 evaluate_every_rounds=0 report=none"
)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("options", ["executor=fused", "executor=loop", "executor=vmap runtime.by_reference=false"])
def test_a_round_of_four_clients_needs_at_most_ten_models(options, tmp_path):
    arguments = [*SMALL.split(), *options.split(), f"run_dir={tmp_path / 'run'}"]
    done = subprocess.run([sys.executable, "-c", ROUND, *arguments], capture_output=True, text=True, check=True)
    models = json.loads(done.stdout.splitlines()[-1])
    assert len(models) == 3 and max(models) <= 10, models
