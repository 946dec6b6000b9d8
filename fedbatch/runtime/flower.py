"""What fedbatch needs of Flower beyond its current public API, kept in one file so that a new Flower breaks one file.

Flower 1.41 reads the identity of the sender from a process-wide variable when a message is made, and a Grid must own a
``Run``. Both are set by Flower's own runtimes; a Grid in this process has to set them itself. ``run_simulation`` is
public but on its way out; ``flwr run`` in its place hides the exit code, the exceptions and the terminal of a run.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import recorddict_to_proto
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedbatch.config.trust import EVERYTHING
from fedbatch.core import telemetry

SERVER_NODE_ID = 1
Serve = Callable[[Grid, Context], None]
"""What a server does on a Grid: a ServerApp, or the function in it."""


def quiet_and_offline(home: Path) -> dict[str, str]:
    """Environment in which Flower and Ray need no network, say nothing of their own and write to ``home``."""
    return {
        **telemetry.OFF,
        "FLWR_HOME": str(home),
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # else a SuperLink installs requirements for every run
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray announces how it will treat nodes without a GPU one day
    }


def new_run(run_id: int = 1) -> Run:
    """An empty run, and this process as its server."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run_id, SERVER_NODE_ID
    return Run.create_empty(run_id=run_id)


def new_context(run_id: int, node_id: int, node_config: dict[str, Any], run_config: dict[str, Any]) -> Context:
    """A context as Flower's runtimes make it."""
    return Context(run_id=run_id, node_id=node_id, node_config=node_config, state=RecordDict(), run_config=run_config)


def stamp(message: Message, message_id: str) -> Message:
    """Give a message its id, which Flower's SuperLink would do."""
    message.metadata.__dict__["_message_id"] = message_id
    return message


class Configured(ClientApp):
    """A ClientApp with its run config: Flower's simulation of an app that is no folder has none.

    Nodes of a simulation are the researcher's own and trust what the run's config names.
    """

    def __init__(self, app: ClientApp, run_config: dict[str, Any]):
        super().__init__()
        self._app, self._run_config = app, run_config

    def __call__(self, message: Message, context: Context) -> Message:
        """The app's answer; its state is that of ``context``."""
        node_config = {**context.node_config, "trust": EVERYTHING}
        return self._app(message, replace(context, run_config=self._run_config, node_config=node_config))


def serve(server_app: Serve, grid: Grid, run_config: dict[str, Any]) -> None:
    """Run a ServerApp on a grid that is there; an exception of the app comes through."""
    server_app(grid, new_context(grid.run.run_id, SERVER_NODE_ID, {}, run_config))


def simulate(server_app: ServerApp, client_app: ClientApp, num_nodes: int, resources: dict[str, float]) -> None:
    """Flower's simulation on Ray, each node with these resources; ends when the ServerApp does, and Ray with it."""
    from flwr.simulation import run_simulation  # imports Ray

    # It logs each reply, its own deprecation, and errors that it goes on to raise or that arrive as error replies.
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    # Flower hands all of it on as options of an actor. One that dies would stay dead, and cost each round a node.
    run_simulation(
        server_app, client_app, num_nodes, backend_config={"client_resources": {**resources, "max_restarts": -1}}
    )


def num_bytes(content: RecordDict) -> int:
    """Bytes of a message's content, as it travels between a SuperNode and a SuperLink."""
    return recorddict_to_proto(content).ByteSize()


def reason(error: Error) -> str:
    r"""Why a node could not answer: the first line of its exception, without what Flower's runtimes wrap around it.

    >>> reason(Error(2, "<class 'E'>:<'(stack)\nException ClientAppException occurred. Message: no data\nhere'>"))
    'no data'
    >>> reason(Error(0, "<class 'ray.exceptions.ActorDiedError'>:<'The actor died.\n pid: 7'>"))
    'The actor died.'
    """
    text = (error.reason or "").rpartition("ClientAppException occurred. Message: ")[2]
    text = re.sub(r"^<class '[^']*'>:<'", "", text).removesuffix("'>")
    return text.strip().splitlines()[0] if text.strip() else "no reason given"
