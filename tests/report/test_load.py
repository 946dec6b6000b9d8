"""A record of 200,000 rounds and a page of 500 runs, each in a process of its own whose memory is measured."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedbatch.results.record import write_parquet
from tests.conftest import run

MEASURED = """
import re, runpy, sys
sys.argv = ["fedbatch", *sys.argv[1:]]
try:
    runpy.run_module("fedbatch", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
status = open("/proc/self/status").read()  # ru_maxrss would count the process that started this one
print("MiB", int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) // 1024)
"""


def mebibytes(*arguments):
    """The most memory that ``fedbatch ARGUMENTS`` takes."""
    command = [sys.executable, "-c", MEASURED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return int(re.search(r"^MiB (\d+)$", done.stdout, re.M)[1])


@pytest.mark.slow
def test_two_hundred_thousand_rounds_are_reported_within_a_gibibyte(make_config):
    config = make_config("rounds=40", "controller=fixed", "evaluate_every_rounds=1")
    run(config)
    folder = Path(config.run_dir)
    rows = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    with (folder / "rounds.jsonl").open("w") as file:
        for number in range(200_000):
            row = rows[number % len(rows)] | {"round": number, "rounds": number + 1, "examples": 16 * (number + 1)}
            file.write(json.dumps(row) + "\n")
    write_parquet(folder / "rounds.jsonl", folder / "rounds.parquet", {})
    assert mebibytes("report", folder) < 1024
    assert (folder / "report.html").stat().st_size < 20e6


@pytest.mark.slow
def test_five_hundred_runs_are_one_page(make_config, tmp_path):
    config = make_config("rounds=40", "controller=fixed", folder="sweep/0")
    run(config)
    first = Path(config.run_dir)
    written = (first / "config.yaml").read_text()
    for number in range(1, 500):
        folder = shutil.copytree(
            first, tmp_path / "sweep" / str(number), ignore=shutil.ignore_patterns("check*", "*.png")
        )
        cohort = re.sub(r"^cohort_size: \d+$", f"cohort_size: {4 + number // 5}", written, flags=re.M)
        (folder / "config.yaml").write_text(re.sub(r"^seed: \d+$", f"seed: {number % 5}", cohort, flags=re.M))
    assert mebibytes("report", tmp_path / "sweep") < 1024
    assert (tmp_path / "sweep" / "report.html").stat().st_size < 30e6
