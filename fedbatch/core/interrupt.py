"""Ctrl-C, SIGTERM and SIGHUP: the first lets the current message or round end, a second ends at once.

Where there is nothing to do but to wait for nodes, the first ends the wait.
"""

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from fedbatch.core.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
POKE = signal.SIGURG
"""Means nothing, and is ignored by who does not expect it."""

log = logging.getLogger("fedbatch")


class Asked:
    """Whether the run has been asked to end.

    Attributes:
        signal: number of the signal, 0 before one came.
        at_once: whether a second came.
    """

    def __init__(self) -> None:
        self.signal, self.at_once, self._waits = 0, False, False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Take note; while waiting, or the second time, end."""
        if self.signal:
            self.at_once = True
            raise Interrupted(signum)
        self.signal = signum
        if self._waits:
            raise Interrupted(signum)
        log.warning("%s: the run ends after this round; once more ends it at once", signal.Signals(signum).name)

    def obey(self) -> None:
        """End here, if asked to.

        Raises:
            Interrupted: it was asked to.
        """
        if self.signal:
            raise Interrupted(self.signal)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """End on the first signal inside the block, which only waits for others: nobody knows for how long."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False


@contextmanager
def listening() -> Iterator[Asked]:
    """Take note of signals inside the block; see `handled`."""
    asked = Asked()
    with handled(SIGNALS, asked), handled((POKE,), lambda *_: None), waking():
        yield asked


@contextmanager
def waking() -> Iterator[None]:
    """Wake the main thread for signals that other threads get, as Flower's watch over its SuperLink raises one.

    Python runs handlers in the main thread, when that gets to it: never, where it waits for a lock.
    """
    main = threading.main_thread().ident
    if threading.get_ident() != main:
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def poke() -> None:
        while came := reader.recv(64):
            if set(came) != {POKE}:
                signal.pthread_kill(main or 0, POKE)

    thread = threading.Thread(target=poke, daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writer.close()
        thread.join()
        reader.close()


@contextmanager
def ending_at_once() -> Iterator[None]:
    """End on SIGTERM and SIGHUP inside the block as on Ctrl-C, so that what is open is closed; see `handled`."""

    def end(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(signum)

    with handled(SIGNALS[1:], end):
        yield


@contextmanager
def handled(signals: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Set a handler inside the block; nothing changes outside the main thread, and for a signal that is ignored."""
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {each: signal.getsignal(each) for each in signals}
    # nohup ignores SIGHUP and a shell's background job SIGINT; None is a handler that is not Python's.
    ours = [each for each, old in before.items() if old not in (signal.SIG_IGN, None)]
    try:
        for each in ours:
            signal.signal(each, handler)
        yield
    finally:
        for each in ours:
            signal.signal(each, before[each])
