"""The files on the page "Bring your own", run as it says."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "own.md"


def test_data_optimizer_and_controller_of_ones_own(tmp_path):
    text = PAGE.read_text()
    for name, body in re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", text, re.S):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body)
    (command,) = re.findall(r"^\$ fedbatch (.*)$", text, re.M)
    done = subprocess.run(
        [sys.executable, "-m", "fedbatch", *command.split(), "run_dir=run", "report=none"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told = re.search(r"after round \d+: noise scale .*", text)
    assert told and told[0] in done.stdout  # as printed on the page
