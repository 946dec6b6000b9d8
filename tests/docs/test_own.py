"""The files on the page "Make it yours", run as it says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "own.md").read_text()
PYTHON = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.S))
FILES = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.S))
COMMANDS = re.findall(r"^\$ fedbatch (.*)$", PAGE.replace("\\\n", ""), re.M)


@pytest.fixture
def folder(tmp_path):
    for name, body in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(body)
    return tmp_path


def fedbatch(folder, command):
    arguments = [sys.executable, "-m", "fedbatch", *shlex.split(command), "run_dir=run", "report=none"]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_parts_of_ones_own_at_once(folder):
    out = fedbatch(folder, COMMANDS[0])
    told = re.search(r"after round \d+: noise scale .*", PAGE)
    assert told and told[0] in out  # as printed on the page
    assert len((folder / "run" / "losses.txt").read_text().splitlines()) == 200


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS[1:])
def test_the_parts_that_do_not_go_with_those(folder, command):
    fedbatch(folder, command)


@pytest.mark.parametrize("name", PYTHON)
def test_an_example_has_at_most_fifteen_lines(name):
    lines = [line for line in PYTHON[name].splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(lines) <= 15, len(lines)
