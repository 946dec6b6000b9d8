"""The live page: made anew from disk, for this machine alone."""

import http.client
import json
import subprocess
import sys
import threading
import urllib.request

import pytest

from fedbatch.core.errors import ConfigError
from fedbatch.report.watch import address, server


@pytest.fixture
def served(write_run):
    folder = write_run("a", summary={"status": "running"})
    with server([folder]) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield folder, made
        made.shutdown()
        thread.join()


def data_of(text):
    return json.loads(text.split('<script id="data" type="application/json">')[1].split("</script>")[0])


def read(made):
    with urllib.request.urlopen(address(made)) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        return data_of(answer.read().decode())


def test_the_page_is_made_anew_each_time(served):
    folder, made = served
    before = read(made)
    assert before["again_after"] == 5 and before["runs"][0]["status"] == "running"
    summary = folder / "summary.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"status": "finished"}))
    assert read(made)["runs"][0]["status"] == "finished"


def test_it_listens_to_this_machine_and_to_its_own_name_only(served):
    _, made = served
    host, port = made.server_address[:2]
    assert host == "127.0.0.1"
    for name, path, status in (
        ("evil.example", "/", 421),
        (f"evil.example:{port}", "/", 421),
        (f"localhost:{port}", "/", 200),
        (f"127.0.0.1:{port}", "/../summary.json", 404),
        (f"127.0.0.1:{port}", "/summary.json", 404),
    ):
        asked = http.client.HTTPConnection(host, port)
        asked.request("GET", path, headers={"Host": name})
        assert asked.getresponse().status == status
        asked.close()


def test_what_cannot_be_served_is_one_line(served, tmp_path):
    folder, made = served
    with pytest.raises(ConfigError, match="--port: .* cannot be used"):
        server([folder], made.server_address[1])
    with pytest.raises(ConfigError, match="--port: 70000 cannot be used"):
        server([folder], 70000)
    with pytest.raises(FileNotFoundError, match="no run in it"):
        server([tmp_path / "none"])
    done = subprocess.run(
        [sys.executable, "-m", "fedbatch", "watch", "--port", "x"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2 and done.stderr == (
        "fedbatch: watch: argument --port: invalid int value: 'x'; see fedbatch watch --help\n"
    )
