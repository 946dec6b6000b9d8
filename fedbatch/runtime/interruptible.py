"""A Grid on which waiting for answers can be broken off."""

from collections.abc import Iterable, Iterator
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from fedbatch.core.interrupt import Asked


class InterruptibleGrid:
    """A Grid on which a signal ends the wait for nodes, and a round's client work between two answers.

    Nothing of the server's state has changed by then, so that it can be saved as it was before the round. Everything
    else is the Grid's own.

    Args:
        grid: the Grid.
        asked: whether to end.
    """

    def __init__(self, grid: Grid, asked: Asked):
        self._grid, self._asked = grid, asked

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def get_node_ids(self) -> Iterable[int]:
        """The Grid's nodes, for which a run that begins looks until they are there."""
        self._asked.obey()
        with self._asked.waiting():
            return self._grid.get_node_ids()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """The Grid's replies; of ``train`` messages only as long as the run goes on, or the last one is there."""
        asked = list(messages)
        is_work = all(message.metadata.message_type == "train" for message in asked)
        if is_work:
            self._asked.obey()
        with self._asked.waiting():  # Flower's own Grids wait here for all replies; the local one computes them later
            replies = self._grid.send_and_receive(asked, timeout=timeout)
        return self._until_asked(replies, len(asked)) if is_work else iter(replies)

    def _until_asked(self, replies: Iterable[Message], expected: int) -> Iterator[Message]:
        for number, reply in enumerate(replies, start=1):
            if number < expected:
                self._asked.obey()
            yield reply
