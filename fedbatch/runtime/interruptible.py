"""A Grid on which waiting for answers can be broken off."""

from collections.abc import Iterable, Iterator
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from fedbatch.core.interrupt import Asked


class InterruptibleGrid:
    """A Grid on which a round's client work can be broken off between two answers.

    Nothing of the server's state has changed by then, so that it can be saved as it was before the round. Everything
    but ``send_and_receive`` is the Grid's own.

    Args:
        grid: the Grid.
        asked: whether to end.
    """

    def __init__(self, grid: Grid, asked: Asked):
        self._grid, self._asked = grid, asked

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """The Grid's replies; of ``train`` messages only as long as the run goes on, or the last one is there."""
        asked = list(messages)
        replies = self._grid.send_and_receive(asked, timeout=timeout)
        if any(message.metadata.message_type != "train" for message in asked):
            return iter(replies)
        return self._until_asked(replies, len(asked))

    def _until_asked(self, replies: Iterable[Message], expected: int) -> Iterator[Message]:
        for number, reply in enumerate(replies, start=1):
            if number < expected:
                self._asked.obey()
            yield reply
