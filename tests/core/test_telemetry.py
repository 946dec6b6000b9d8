"""Libraries do not report that they are used, however fedbatch is started."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedbatch.core.telemetry import OFF
from fedbatch.runtime.flower import quiet_and_offline

DOCS = Path(__file__).parents[2] / "docs"
ASKED = "from flwr.supercore import telemetry; from huggingface_hub import constants; "
ASKED += "print(telemetry.FLWR_TELEMETRY_ENABLED, constants.HF_HUB_DISABLE_TELEMETRY)"
WAYS = ["import fedbatch", "from fedbatch.strategy import NoiseScale", "from fedbatch import server_app, client_app"]


def said(code, **variables):
    clean = {name: value for name, value in os.environ.items() if name not in OFF} | variables
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("way", WAYS)
def test_whatever_is_imported_first_they_are_off(way):
    assert said(f"{way}; {ASKED}") == ["0", "True"]


def test_what_the_user_has_set_stays():
    assert said(f"import fedbatch; {ASKED}", FLWR_TELEMETRY_ENABLED="1") == ["1", "True"]


def test_processes_of_a_simulation_and_of_the_demo_are_told(tmp_path):
    assert OFF.items() <= quiet_and_offline(tmp_path).items()


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_every_block_with_programs_of_others_turns_them_off(page):
    for block in re.findall(r"^ *```(?:bash|console)$(.*?)^ *```$", page.read_text(), re.M | re.S):
        if re.search(r"^ *(\$ )?(\w+=\w+ )*(flower-super\w+|flwr)\b", block, re.M):
            assert "FLWR_TELEMETRY_ENABLED=0" in block, block
        if re.search(r"^ *(\$ )?ray start", block, re.M):
            assert "RAY_USAGE_STATS_ENABLED=0" in block, block
