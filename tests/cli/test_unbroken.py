"""A reader of the output may go away; the run does not."""

import os
import subprocess
import sys

from fedbatch.cli.unbroken import Unbroken
from fedbatch.results.folder import summary_of


def test_writing_to_a_closed_pipe_goes_nowhere():
    read, write = os.pipe()
    stream = Unbroken(os.fdopen(write, "w", buffering=1))
    assert stream.write("one\n") == 4 and os.read(read, 10) == b"one\n"
    os.close(read)
    for text in ("two\n", "three\n"):
        assert stream.write(text) == len(text)
        stream.flush()
    assert stream.encoding.lower().startswith("utf")  # all else is the stream's own
    stream.close()


def test_a_run_goes_on_when_its_reader_has_seen_enough(tmp_path):
    words = "dataset=digits model=logistic population=4 cohort_size=2 client_batch_size=4 rounds=30 report=none"
    words += f" controller=fixed run_dir={tmp_path / 'run'}"
    command = f"{sys.executable} -m fedbatch.cli.app {words} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == "" and len(done.stdout.splitlines()) == 1
    assert summary_of(tmp_path / "run")["status"] == "finished" and summary_of(tmp_path / "run")["rounds"] == 30
