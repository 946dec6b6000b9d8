"""What fedbatch needs of Flower beyond its public API, kept in one file so that a new Flower breaks one file.

Flower 1.41 reads the identity of the sender from a process-wide variable when a message is made, and a Grid must own a
``Run``. Both are set by Flower's own runtimes; a Grid in this process has to set them itself.
"""

from flwr.app import Context, Message, RecordDict
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SERVER_NODE_ID = 1


def new_run(run_id: int = 1) -> Run:
    """An empty run, and this process as its server."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run_id, SERVER_NODE_ID
    return Run.create_empty(run_id=run_id)


def new_context(run_id: int, node_id: int, node_config: dict, run_config: dict) -> Context:
    """A context as Flower's runtimes make it."""
    return Context(run_id=run_id, node_id=node_id, node_config=node_config, state=RecordDict(), run_config=run_config)


def stamp(message: Message, message_id: str) -> Message:
    """Give a message its id, which Flower's SuperLink would do."""
    message.metadata.__dict__["_message_id"] = message_id
    return message
