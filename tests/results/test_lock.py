import json
import os
import socket
import subprocess
import sys

import pytest

from fedbatch.core.errors import ConfigError
from fedbatch.results.lock import FILE, locked


def test_a_second_run_is_refused_and_the_next_one_is_not(tmp_path):
    with locked(tmp_path):
        owner = f"process {os.getpid()} on {socket.gethostname()}"
        with pytest.raises(ConfigError, match=f"in use by {owner}; wait"), locked(tmp_path):
            pass
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_what_a_kill_leaves_is_taken_over(tmp_path):
    code = "import os; from pathlib import Path; from fedbatch.results.lock import locked\n"
    code += f"with locked(Path({str(tmp_path)!r})): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert (tmp_path / FILE).exists()
    with locked(tmp_path):
        pass
    (tmp_path / FILE).write_text("garbage")
    with locked(tmp_path):
        pass


def test_another_machine_is_believed(tmp_path):
    (tmp_path / FILE).write_text(json.dumps({"pid": 7, "host": "elsewhere"}))
    said = f"process 7 on elsewhere; if that has ended, delete {tmp_path / FILE}"
    with pytest.raises(ConfigError, match=said), locked(tmp_path):
        pass
    assert (tmp_path / FILE).exists()
