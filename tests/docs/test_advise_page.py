"""The command on the page "Which batch, before the run" prints what stands there."""

import re
import shlex
from pathlib import Path

import pytest

from fedbatch.cli.commands import run_command

PAGE = Path(__file__).parents[2] / "docs" / "advise.md"


@pytest.mark.slow
def test_the_probe_says_what_the_page_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    block = re.search(r"```console\n(.*?)```", PAGE.read_text(), re.S)[1]
    command, *shown = [line for line in block.splitlines() if not line.startswith("probe: ")][:-1]
    assert run_command(*shlex.split(command)[2:]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("probe: ")]
    assert " ".join(told).split() == " ".join(shown).split(), "long lines are folded there"
