"""Real processes: a SuperLink, SuperNodes, and fedbatch's apps sent to them as Flower sends any app."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fedbatch.core.errors import RunFailedError
from simulations.deployment.credentials import make_certificates, make_node_key
from simulations.deployment.federation import loopback, process, superlink, supernode

ROOT = Path(__file__).parents[2]
# The default data set lies in the package, but is left out of the app bundle that Flower sends.
TINY = "dataset=fashion_mini population=20 cohort_size=4 model.width=8 controller=fixed rounds=2 nodes=2"
NODES = [{"partition-id": index, "num-partitions": 2} for index in range(2)]


@pytest.fixture
def folders(tmp_path):
    made = tmp_path / "private", tmp_path / "logs"
    for folder in made:
        folder.mkdir()
    return made


def running(mark):
    """Command lines of all processes that name ``mark``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            found.append(path.read_bytes().replace(b"\0", b" ").decode())
    return [line for line in found if str(mark) in line]


def left(mark, seconds=5.0):
    """What is running and stays: the kernel takes a moment to end what was killed."""
    deadline = time.monotonic() + seconds
    while (found := running(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def params(folder):
    return json.loads((folder / "summary.json").read_text())["params_sha256"]


def test_the_certificate_is_for_this_machine_and_signed_by_the_authority(tmp_path):
    made = make_certificates(tmp_path)
    authority = x509.load_pem_x509_certificate(made.authority.read_bytes())
    server = x509.load_pem_x509_certificate(made.server.read_bytes())
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    key = serialization.load_pem_private_key(made.key.read_bytes(), None)
    assert key.public_key() == server.public_key()


def test_private_keys_are_for_their_owner_only(tmp_path):
    keys = make_certificates(tmp_path).key, make_node_key(tmp_path, "node").private
    assert [stat.S_IMODE(key.stat().st_mode) for key in keys] == [0o600, 0o600]
    assert "PRIVATE" not in make_node_key(tmp_path, "other").public.read_text()


def test_a_process_ends_with_the_block_and_with_all_that_it_started(tmp_path):
    child = [sys.executable, "-c", f"import time; time.sleep(600)  # {tmp_path}"]
    code = f"import subprocess, time; subprocess.Popen({child!r}); time.sleep(600)"
    with pytest.raises(KeyError), process([sys.executable, "-c", code], os.environ, tmp_path / "log"):
        while len(running(tmp_path)) < 2:
            time.sleep(0.05)
        raise KeyError("stop")
    assert left(tmp_path) == []


def test_a_signal_while_a_process_starts_leaves_nothing_running(tmp_path, monkeypatch):
    start = subprocess.Popen

    def interrupted(*arguments, **options):
        started = start(*arguments, **options)
        signal.raise_signal(signal.SIGTERM)
        return started

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    command = [sys.executable, "-c", f"import time; time.sleep(600)  # {tmp_path}"]
    try:
        with pytest.raises(SystemExit), process(command, os.environ, tmp_path / "log"):
            pytest.fail("the block was entered")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert left(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_deployment_and_a_local_run_arrive_at_the_same_bits(folders, tmp_path, secure):
    with loopback(*folders, NODES, secure=secure) as federation:
        federation.run(f"{TINY} run_dir={tmp_path / 'deployed'}", timeout=300)
    overrides = [*TINY.split(), "run_dir=local"]
    subprocess.run([sys.executable, "-m", "fedbatch", *overrides], cwd=tmp_path, check=True, capture_output=True)
    assert params(tmp_path / "deployed") == params(tmp_path / "local")


@pytest.mark.slow
def test_a_run_that_fails_says_so(folders):
    with superlink(*folders, secure=False) as federation, pytest.raises(RunFailedError, match="finished:failed"):
        federation.run("rounds=0", timeout=120)


@pytest.mark.slow
def test_a_supernode_that_nobody_registered_is_refused(folders):
    private, logs = folders
    with superlink(private, logs, secure=True) as federation:
        stranger = make_node_key(private, "stranger")
        for name, key in {"nameless": None, "stranger": stranger}.items():
            with supernode(federation, name, NODES[0], key) as node:
                assert node.wait(60) != 0, f"the {name} node goes on"
        assert federation.flwr("supernode", "list", "loopback")["nodes"] == []
        federation.register(stranger)
        with supernode(federation, "registered", NODES[0], stranger):
            deadline = time.monotonic() + 60
            while [n["status"] for n in federation.flwr("supernode", "list", "loopback")["nodes"]] != ["online"]:
                assert time.monotonic() < deadline
                time.sleep(1)


@pytest.mark.slow
def test_the_demonstration_shows_its_table_and_leaves_nothing_running(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}  # keys' paths mark its processes
    command = [sys.executable, "-m", "simulations.deployment", "rounds=1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)
    assert (done.returncode, done.stderr) == (0, "") and "accuracy" in done.stdout
    assert left(tmp_path) == []


@pytest.mark.slow
def test_a_demonstration_that_is_ended_early_takes_everything_down(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "simulations.deployment"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as demo:
        assert "SuperLink at" in demo.stdout.readline()
        assert running(tmp_path)
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(60) == 143
    assert left(tmp_path) == []
