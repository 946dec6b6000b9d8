"""The first command on the page "What batch should I use?" prints what stands there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "critical.md"


@pytest.mark.slow
def test_one_run_says_what_the_page_shows(tmp_path, monkeypatch):
    block, code = re.search(r"```console\n(.*?)```", PAGE.read_text(), re.S)[1], PAGE.read_text()
    commands = re.findall(r"^\$ (fedbatch (?:.*\\\n)*.*)$", block, re.M)
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command.replace("\\\n", " "))[1:]
        done = subprocess.run(
            [sys.executable, "-m", "fedbatch.cli.app", *words], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert block.split(commands[-1])[1].split() == done.stdout.split(), "long lines are folded there"
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", code, re.S)[1], {})
