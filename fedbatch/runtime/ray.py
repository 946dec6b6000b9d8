"""Nodes side by side on Ray: Flower's own simulation, driven from this process.

Flower keeps its ServerApp in a thread beside the simulation. Here it is the other way round: the simulation has the
thread and the ServerApp stays where it is, so that its exceptions, its progress bar and Ctrl-C are those of a run in
this process, and a simulation that breaks down ends the run where Flower would wait for answers for ever.
"""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from queue import Queue
from threading import Event, Thread, main_thread
from typing import Any

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedbatch.core import cache
from fedbatch.core.errors import ConfigError, RunFailedError
from fedbatch.runtime.flower import SERVER_NODE_ID, Configured, Serve, new_context, quiet_and_offline, simulate

CONNECT_SECONDS = 10
WIND_DOWN_SECONDS = 30
AGAIN_SECONDS = 5.0
BREAKDOWN = signal.SIGUSR1
"""Wakes the main thread, whatever it waits for. Not SIGINT: that is ignored in a background job of a shell script."""


@dataclass(frozen=True)
class Ray:
    """Runs each node in a Ray actor; nodes for which there is no room wait for their turn.

    Attributes:
        cpus_per_node: processors that Ray reserves for a node, > 0.
        gpus_per_node: GPUs that it reserves, >= 0; 0.25 puts four nodes on one.
        address: None starts Ray on this machine and stops it after the run; "auto" or "host:port" joins a cluster.

    Raises:
        ConfigError: Ray is not installed, or a number is out of range.
    """

    cpus_per_node: float
    gpus_per_node: float
    address: str | None

    def __post_init__(self) -> None:
        if self.cpus_per_node <= 0:
            raise ConfigError(f"runtime.cpus_per_node must be above 0 (got {self.cpus_per_node:g})")
        if self.gpus_per_node < 0:
            raise ConfigError(f"runtime.gpus_per_node must not be negative (got {self.gpus_per_node:g})")
        if find_spec("ray") is None:
            raise ConfigError("runtime=ray needs Ray: pip install 'fedbatch[ray]', or use runtime=local")
        port = (self.address or "").rpartition(":")[2]
        if self.address not in (None, "auto", "local") and not (port != self.address and port.isdecimal()):
            raise ConfigError(f"runtime.address must be null, auto or host:port (got {self.address})")

    def __call__(self, server_app: Serve, client_app: ClientApp, num_nodes: int, run_config: dict[str, Any]) -> None:
        """Run both apps; an exception of the ServerApp comes through.

        Raises:
            ConfigError: Ray cannot be reached, or has no machine with the resources of a node.
            RunFailedError: Ray cannot start on this machine, or breaks down.
        """
        self._start()
        resources = {"num_cpus": self.cpus_per_node, "num_gpus": self.gpus_per_node}
        with simulation(Configured(client_app, run_config), num_nodes, resources) as grid:
            server_app(grid, new_context(grid.run.run_id, SERVER_NODE_ID, {}, run_config))

    def _start(self) -> None:
        # Flower would start Ray by itself, but with a traceback where something is missing.
        for name, value in quiet_and_offline(cache.folder() / "flower").items():
            os.environ.setdefault(name, value)
        import ray

        quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "CRITICAL"}
        try:
            if self.address and ":" in self.address:
                greet(self.address)
            # Without an address Ray would join a cluster that the environment or a file of an earlier one names.
            ray.init(address=self.address or "local", **quiet)
        except Exception as error:  # Ray's are of many kinds, and some are of none
            reason = root_cause(error).rstrip(".")
            if self.address in (None, "local"):
                remedy = "look into /tmp/ray/session_latest/logs, or use runtime=local"
                raise RunFailedError(f"Ray cannot start: {reason}; {remedy}") from error
            raise ConfigError(
                f"runtime.address={self.address}: {reason}; `ray start --head` starts a cluster"
            ) from error
        machines = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
        if not any(m.get("CPU", 0) >= self.cpus_per_node and m.get("GPU", 0) >= self.gpus_per_node for m in machines):
            ray.shutdown()
            largest = ", ".join(f"{m.get('CPU', 0):g} CPUs and {m.get('GPU', 0):g} GPUs" for m in machines)
            raise ConfigError(
                f"runtime: no machine has the {self.cpus_per_node:g} CPUs and {self.gpus_per_node:g} GPUs of a node "
                f"(there are {largest}); lower runtime.cpus_per_node or runtime.gpus_per_node"
            )


def greet(address: str) -> None:
    """See that a Ray may be at ``host:port``: Ray itself would try for minutes, where nobody or another is.

    Raises:
        OSError: nobody answers, or not as Ray would.
    """
    import grpc  # what Flower speaks, and Ray

    host, port = address.rsplit(":", 1)
    socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    if os.environ.get("RAY_USE_TLS", "0") != "0":  # by certificates that only Ray knows
        return
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            raise OSError(f"what answers there is no Ray, or takes more than {CONNECT_SECONDS} s") from None


class _BrokenDown(BaseException):
    """Flower's simulation has ended while the run still waits for it."""


def _end_the_wait(signum: int, frame: object) -> None:
    raise _BrokenDown


@contextmanager
def simulation(client_app: ClientApp, num_nodes: int, resources: dict[str, float]) -> Iterator[Grid]:
    """The Grid of a running simulation of Flower, on the Ray of this process; both end with the block.

    Args:
        client_app: the app of every node.
        num_nodes: nodes, numbered by ``partition-id``.
        resources: of a node, as Ray names them.

    Raises:
        RunFailedError: the simulation broke down before the block was done.
    """
    grids: Queue[Grid] = Queue()
    done = Event()
    failures: list[BaseException] = []
    relay = ServerApp()

    @relay.main()
    def hand_over(grid: Grid, _: Context) -> None:
        grids.put(grid)
        done.wait()

    def work() -> None:
        try:
            simulate(relay, client_app, num_nodes, resources)
        except BaseException as error:
            failures.append(error)
            while not done.is_set():
                signal.pthread_kill(main_thread().ident or 0, BREAKDOWN)
                done.wait(AGAIN_SECONDS)  # Python drops what is raised in a finaliser, and the run would wait for ever

    thread = Thread(target=work, daemon=True)
    before = signal.signal(BREAKDOWN, _end_the_wait)
    try:
        thread.start()  # in here: a simulation that fails at once interrupts even this
        yield grids.get()
    except _BrokenDown:
        raise RunFailedError(f"Ray: {root_cause(failures[0])}") from failures[0]
    finally:
        signal.signal(BREAKDOWN, signal.SIG_IGN)  # the block is done: a breakdown from here on is no news
        done.set()
        thread.join(WIND_DOWN_SECONDS)
        signal.signal(BREAKDOWN, before)


def root_cause(error: BaseException) -> str:
    """The first line of what began it all."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
