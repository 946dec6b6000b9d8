"""A signal ends the wait for nodes on a Grid that waits, whatever it was asked for."""

import signal
from types import SimpleNamespace

import pytest

from fedbatch.core.errors import Interrupted
from fedbatch.core.interrupt import listening
from fedbatch.runtime.interruptible import InterruptibleGrid


class Waiting:
    """A Grid that a signal finds while it waits."""

    def get_node_ids(self):
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("waited on")

    def send_and_receive(self, messages, *, timeout=None):
        return self.get_node_ids()


def message(kind):
    return SimpleNamespace(metadata=SimpleNamespace(message_type=kind))


@pytest.mark.parametrize("kind", ["train", "evaluate", "query"])
def test_the_wait_for_answers_ends(kind):
    with listening() as asked, pytest.raises(Interrupted):
        InterruptibleGrid(Waiting(), asked).send_and_receive([message(kind)])
    assert not asked.at_once


def test_the_wait_for_nodes_ends():
    with listening() as asked, pytest.raises(Interrupted):
        InterruptibleGrid(Waiting(), asked).get_node_ids()


def test_nobody_is_asked_to_work_once_the_run_is_to_end():
    with listening() as asked:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            InterruptibleGrid(SimpleNamespace(), asked).send_and_receive([message("train")])
