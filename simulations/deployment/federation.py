"""One SuperLink and its SuperNodes as processes on loopback, and runs on them; nothing outlives the block."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbatch.core.errors import RunFailedError
from fedbatch.runtime.flower import quiet_and_offline
from simulations.deployment.credentials import Certificates, NodeKey, make_certificates, make_node_key

APP = Path(__file__).parents[2]
NAME = "loopback"  # of the SuperLink in Flower's own config
START_SECONDS, STOP_SECONDS = 60.0, 10.0
POLL_SECONDS = 3.0  # each look is a process of its own


@dataclass(frozen=True)
class Federation:
    """A SuperLink that answers.

    Attributes:
        address: host and port.
        certificates: of its TLS; None where it speaks in the clear and lets any SuperNode in.
        environment: of every process.
        logs: folder that takes what each process says.
    """

    address: str
    certificates: Certificates | None
    environment: Mapping[str, str]
    logs: Path

    def run(self, overrides: str, timeout: float = 600.0) -> None:
        """Run fedbatch's apps with these Hydra overrides, and wait.

        Raises:
            RunFailedError: the run failed, or takes longer than ``timeout`` seconds.
        """
        self.wait(self.begin(overrides), timeout)

    def begin(self, overrides: str) -> str:
        """Begin a run of fedbatch's apps with these Hydra overrides; its id."""
        config = self.logs / "run.toml"
        config.write_text(f"overrides = {json.dumps(overrides)}\n")  # a JSON string is a TOML string
        return str(self.flwr("run", str(APP), NAME, "--run-config", str(config))["run-id"])

    def wait(self, run_id: str, timeout: float) -> None:
        """Wait for the end of a run.

        Raises:
            RunFailedError: the run failed, or takes longer than ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while not (state := self._state(run_id))["status"].startswith("finished"):
            if time.monotonic() > deadline:
                raise RunFailedError(f"the run is {state['status']} after {timeout:g} s; see {self.logs}")
            time.sleep(POLL_SECONDS)
        if state["status"] != "finished:completed":
            raise RunFailedError(f"{state['status']}: {state['status-details']}; see {self.logs}")

    def register(self, key: NodeKey) -> None:
        """Let in the SuperNode that holds this key."""
        self.flwr("supernode", "register", str(key.public), NAME)

    def flwr(self, *arguments: str) -> dict[str, Any]:
        """What a command of Flower answers.

        Raises:
            RunFailedError: it does not.
        """
        log = self.logs / f"flwr-{arguments[0]}.log"
        with process([_script("flwr"), *arguments, "--format", "json"], self.environment, log) as asked:
            asked.wait()
        said = log.read_text()
        with suppress(ValueError):
            # Messages for people stand around it.
            answer: dict[str, Any] = json.JSONDecoder().raw_decode(said, said.index("{"))[0]
            if answer.get("success"):
                return answer
        raise RunFailedError(f"flwr {' '.join(arguments[:2])} failed: {said.strip()[-500:]}")

    def _state(self, run_id: str) -> dict[str, Any]:
        (run,) = self.flwr("list", NAME, "--run-id", run_id)["runs"]
        return dict(run)


@contextmanager
def superlink(folder: Path, logs: Path, *, secure: bool) -> Iterator[Federation]:
    """A SuperLink that ends with the block; arguments as of `federation_on`."""
    federation = federation_on(folder, logs, secure=secure)
    with link(federation, "superlink"):
        yield federation


def federation_on(folder: Path, logs: Path, *, secure: bool) -> Federation:
    """A federation of this machine, with an address that is free; its SuperLink is still to be started.

    Args:
        folder: private, for keys and Flower's own files.
        logs: for logs.
        secure: with TLS, and for registered SuperNodes only.
    """
    certificates = make_certificates(folder) if secure else None
    environment = {**os.environ, **quiet_and_offline(folder)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # they start one another
    address = f"127.0.0.1:{_free_port()}"
    connection = "insecure = true"
    if certificates is not None:
        connection = f"root-certificates = {json.dumps(str(certificates.authority))}"
    (folder / "config.toml").write_text(f'[superlink.{NAME}]\naddress = "{address}"\n{connection}\n')
    return Federation(address, certificates, environment, logs)


@contextmanager
def link(federation: Federation, name: str, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """The SuperLink of a federation, which ends with the block; it may be started again.

    Args:
        federation: whose address it takes.
        name: of its log.
        more: arguments of ``flower-superlink``.
    """
    flags, certificates = ["--insecure"], federation.certificates
    if certificates is not None:
        flags = ["--ssl-ca-certfile", str(certificates.authority), "--ssl-certfile", str(certificates.server)]
        flags += ["--ssl-keyfile", str(certificates.key), "--enable-supernode-auth"]
    host, port = federation.address.split(":")
    command = [_script("flower-superlink"), "--host", host, "--port", port, *flags, *more]
    with process(command, federation.environment, federation.logs / f"{name}.log") as server:
        _wait_for(int(port), server)
        yield server


@contextmanager
def supernode(
    federation: Federation, name: str, node_config: Mapping[str, int | str], key: NodeKey | None
) -> Iterator[subprocess.Popen[bytes]]:
    """A SuperNode that ends with the block.

    Args:
        federation: where it connects.
        name: of its log.
        node_config: ``partition-id``, ``num-partitions`` and, for data of its own, ``data``.
        key: by which the SuperLink knows it; None for a node that says nothing of itself.
    """
    flags = ["--insecure"]
    if federation.certificates is not None:
        flags = ["--root-certificates", str(federation.certificates.authority)]
    if key is not None:
        flags += ["--auth-supernode-private-key", str(key.private)]
    values = " ".join(f"{name}={json.dumps(value)}" for name, value in node_config.items())
    command = [_script("flower-supernode"), "--superlink", federation.address, "--node-config", values, *flags]
    command += ["--host", "127.0.0.1", "--port", str(_free_port())]
    with process(command, federation.environment, federation.logs / f"{name}.log") as node:
        yield node


@contextmanager
def loopback(folder: Path, logs: Path, nodes: list[Mapping[str, int | str]], *, secure: bool) -> Iterator[Federation]:
    """A SuperLink with one registered SuperNode for each node config."""
    with ExitStack() as stack:
        federation = stack.enter_context(superlink(folder, logs, secure=secure))
        for index, node_config in enumerate(nodes):
            name, key = f"supernode-{index}", None
            if secure:
                key = make_node_key(folder, name)
                federation.register(key)
            stack.enter_context(supernode(federation, name, node_config, key))
        yield federation


@contextmanager
def process(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended, with all that it started, on leaving."""
    started = None
    try:
        with open(log, "w") as file, _signals_wait():
            started = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
        yield started
    finally:
        if started is not None:
            _end(started)


def _end(started: subprocess.Popen[bytes]) -> None:
    for kind in (signal.SIGTERM, signal.SIGKILL):  # the second for what the first has left of the group
        with suppress(ProcessLookupError):
            os.killpg(started.pid, kind)
        with suppress(subprocess.TimeoutExpired):
            started.wait(STOP_SECONDS)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Ctrl-C and SIGTERM strike after the block: within it, a process may run that nobody holds yet."""
    came: list[int] = []
    before = {kind: signal.signal(kind, lambda kind, _: came.append(kind)) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
        for number in came:
            signal.raise_signal(number)


def _script(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    raise RunFailedError(f"the SuperLink does not answer on port {port}")
