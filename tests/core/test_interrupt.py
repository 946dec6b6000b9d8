import logging
import signal
import threading
import time

import pytest

from fedbatch.core.errors import Interrupted
from fedbatch.core.interrupt import POKE, SIGNALS, ending_at_once, listening


@pytest.fixture(autouse=True)
def handled():
    """A shell starts what it puts in the background with SIGINT ignored."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, old)


def test_the_first_signal_is_noted_and_the_second_ends(caplog):
    before = [signal.getsignal(each) for each in SIGNALS]
    with caplog.at_level(logging.WARNING), listening() as asked:
        signal.raise_signal(signal.SIGTERM)
        assert asked.signal == signal.SIGTERM and not asked.at_once and "SIGTERM: the run ends" in caplog.text
        with pytest.raises(Interrupted, match="signal 2"):
            signal.raise_signal(signal.SIGINT)
        assert asked.at_once
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_signal_that_is_ignored_stays_ignored():
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listening() as asked, ending_at_once():
            signal.raise_signal(signal.SIGHUP)
            assert not asked.signal
    finally:
        signal.signal(signal.SIGHUP, old)


def test_before_a_run_a_signal_ends_at_once():
    with pytest.raises(Interrupted) as caught, ending_at_once():
        signal.raise_signal(signal.SIGTERM)
    assert (caught.value.signal, caught.value.folder) == (signal.SIGTERM, None)


def test_outside_the_main_thread_nothing_is_done():
    def inside():
        with listening() as asked:
            found.append((asked.signal, signal.getsignal(signal.SIGTERM)))

    found, before = [], signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [(0, before)]


def test_the_first_signal_ends_a_wait(caplog):
    with listening() as asked:
        with asked.waiting():
            pass
        with pytest.raises(Interrupted, match="signal 15"), asked.waiting():
            signal.raise_signal(signal.SIGTERM)
        assert asked.signal == signal.SIGTERM and not asked.at_once  # so that a checkpoint is written
        assert "after this round" not in caplog.text


def test_a_signal_that_another_thread_gets_ends_the_wait_of_the_main_one():
    """Flower's watch over its SuperLink raises one so, while the main thread waits for arrays that never come."""
    before = signal.getsignal(POKE)
    watch = threading.Timer(0.2, signal.raise_signal, (signal.SIGINT,))
    with listening() as asked:
        watch.start()
        start = time.monotonic()
        with pytest.raises(Interrupted), asked.waiting():
            threading.Event().wait(20)
        assert time.monotonic() - start < 10
    assert signal.getsignal(POKE) == before and signal.set_wakeup_fd(-1) == -1
