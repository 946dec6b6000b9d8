"""Ctrl-C, SIGTERM and SIGHUP: the first lets the current message or round end, a second ends at once."""

import logging
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from fedbatch.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

log = logging.getLogger("fedbatch")


class Asked:
    """Whether the run has been asked to end.

    Attributes:
        signal: number of the signal, 0 before one came.
        at_once: whether a second came.
    """

    def __init__(self) -> None:
        self.signal, self.at_once = 0, False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Take note; the second time, end."""
        if self.signal:
            self.at_once = True
            raise Interrupted(signum)
        self.signal = signum
        log.warning("%s: the run ends after this round; once more ends it at once", signal.Signals(signum).name)

    def obey(self) -> None:
        """End here, if asked to.

        Raises:
            Interrupted: it was asked to.
        """
        if self.signal:
            raise Interrupted(self.signal)


@contextmanager
def listening() -> Iterator[Asked]:
    """Take note of signals inside the block; nothing changes outside the main thread, and where one is ignored."""
    asked = Asked()
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {each: signal.getsignal(each) for each in SIGNALS}
    # nohup ignores SIGHUP and a shell's background job SIGINT; None is a handler that is not Python's.
    ours = [each for each, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    try:
        for each in ours:
            signal.signal(each, asked)
        yield asked
    finally:
        for each in ours:
            signal.signal(each, before[each])


def end_at_once(signum: int, frame: FrameType | None) -> None:
    """A handler for what comes before a run and after it."""
    raise Interrupted(signum)


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
