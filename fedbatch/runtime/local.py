"""A Flower Grid in this process: the same ServerApp and ClientApp, without Ray and without sockets."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedbatch.config.trust import EVERYTHING
from fedbatch.runtime.flower import SERVER_NODE_ID, Serve, new_context, new_run, serve, stamp

CLIENT_ERROR = 0


class LocalGrid(Grid):
    """Delivers each message by calling the ClientApp, one after the other: deterministic and easy to debug.

    Its nodes are the researcher's own and trust what the run's config names.

    Args:
        client_app: the ClientApp of every node.
        num_nodes: nodes, numbered by ``partition-id`` as in Flower's simulation.
        run_config: the run config that apps see.
        by_reference: whether messages are handed over as they are; else they are written down as for a network. The
            results are the same.
    """

    def __init__(self, client_app: ClientApp, num_nodes: int, run_config: dict[str, Any], by_reference: bool = True):
        self._app = client_app
        self.by_reference = by_reference
        self._run = new_run()
        self._contexts = {
            SERVER_NODE_ID + 1 + i: new_context(
                self._run.run_id,
                SERVER_NODE_ID + 1 + i,
                {"partition-id": i, "num-partitions": num_nodes, "trust": EVERYTHING},
                run_config,
            )
            for i in range(num_nodes)
        }
        self._replies: dict[str, Message] = {}
        self._sent = 0

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to one node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """All nodes: in this process none is ever away."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Deliver messages and keep the replies for `pull_messages`."""
        replies = {message.metadata.message_id: self._deliver(message) for message in self._stamped(messages)}
        self._replies |= replies
        return list(replies)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Replies to the given messages, each handed out once."""
        return [self._replies.pop(i) for i in list(message_ids) if i in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Replies, computed as they are asked for, so that one is alive at a time."""
        return (self._deliver(message) for message in self._stamped(messages))

    def _stamped(self, messages: Iterable[Message]) -> Iterator[Message]:
        for message in messages:
            self._sent += 1
            yield stamp(message, f"local-{self._sent}")

    def _deliver(self, message: Message) -> Message:
        try:
            reply = self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:  # the contract of Flower's own runtimes: a client's exception is an error reply
            reply = Message(Error(CLIENT_ERROR, f"{type(error).__name__}: {error}"), reply_to=message)
        return stamp(reply, f"{message.metadata.message_id}-reply")


@dataclass(frozen=True)
class Local:
    """Runs all nodes in this process.

    Attributes:
        by_reference: as in `LocalGrid`.
    """

    by_reference: bool = True

    def __call__(self, server_app: Serve, client_app: ClientApp, num_nodes: int, run_config: dict[str, Any]) -> None:
        """See `run_locally`."""
        run_locally(server_app, client_app, num_nodes, run_config, self.by_reference)


def run_locally(
    server_app: Serve,
    client_app: ClientApp,
    num_nodes: int,
    run_config: dict[str, Any],
    by_reference: bool = True,
) -> None:
    """Run both apps in this process; an exception of the ServerApp comes through."""
    grid = LocalGrid(client_app, num_nodes, run_config, by_reference)
    serve(server_app, grid, run_config)
