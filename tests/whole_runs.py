"""Whole runs in this process, and what is compared of them."""

import json
import logging
import math
import sys

import torch

from fedbatch.cli import app
from fedbatch.setup import task

OMITTED = ("seconds", "executor")
"""What differs from run to run, or is for people: parts of names of columns."""


def run(arguments):
    """Exit status of ``fedbatch ARGUMENTS``."""
    given, path = sys.argv, list(sys.path)
    sys.argv = ["fedbatch", *arguments]
    try:
        app.main()
        return 0
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv, sys.path[:] = given, path
        logging.getLogger("fedbatch").setLevel(logging.NOTSET)
        task.forget()


def outcome(arguments, folder):
    """What a run leaves: hash of its parameters, and the numbers of its record; see `left`."""
    assert run([*arguments, f"run_dir={folder}"]) == 0
    return left(folder)


def left(folder):
    """Hash of the parameters, the numbers of the record row by row, and the machine that they are the bits of."""
    summary = json.loads((folder / "summary.json").read_text())
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    rows = [
        {name: value for name, value in line.items() if is_compared(name, value)}
        for line in sorted(lines, key=lambda line: line["round"])
    ]
    machine = [torch.__version__, torch.backends.cpu.get_cpu_capability()]
    return {
        "machine": machine,
        "params": summary["params_sha256"],
        "epsilon": summary.get("epsilon"),
        "rows": {f"{row['round']}.{name}": value for row in rows for name, value in row.items()},
    }


def is_compared(name, value):
    """Whether a column is a number that does not depend on time."""
    return isinstance(value, int | float) and math.isfinite(value) and not any(part in name for part in OMITTED)
