"""What a new Flower may break: everything here is about `fedbatch.runtime.flower` alone."""

import pickle
from importlib import metadata

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from fedbatch.runtime.flower import SERVER_NODE_ID, Configured, new_context, new_run, reason, stamp


def question() -> Message:
    return Message(RecordDict({"q": ConfigRecord({"n": 1})}), 7, "query")


def answer(message, context):
    context.state["seen"] = ConfigRecord({"word": context.run_config["word"]})
    return Message(RecordDict({"r": ConfigRecord(dict(context.run_config))}), reply_to=message)


def test_this_is_the_flower_that_was_read():
    assert metadata.version("flwr").startswith("1.41.")


def test_a_run_makes_this_process_a_sender_of_messages():
    run = new_run(5)
    message = question()
    assert run.run_id == 5
    assert (message.metadata.run_id, message.metadata.src_node_id, message.metadata.dst_node_id) == (
        5,
        SERVER_NODE_ID,
        7,
    )


def test_a_stamped_message_can_be_answered():
    new_run()
    message = stamp(question(), "m-1")
    reply = Message(RecordDict({"r": ConfigRecord({"a": 2})}), reply_to=message)
    assert reply.metadata.reply_to_message_id == "m-1" and reply.metadata.src_node_id == 7


def test_a_configured_app_sees_its_run_config_and_keeps_the_state_of_its_node():
    app = ClientApp()
    app.query()(answer)
    new_run()
    context = new_context(1, 7, {"partition-id": 0}, {})
    configured = pickle.loads(pickle.dumps(Configured(answer, {"word": "hi"})))  # Ray sends the app to its workers
    reply = configured(stamp(question(), "m-1"), context)
    assert dict(reply.content["r"]) == {"word": "hi"} == dict(context.state["seen"])
    assert context.run_config == {}  # Flower refuses a node that changes it


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("ValueError: no data", "ValueError: no data"),
        ("<class 'flwr.X'>:<'\nException ClientAppException occurred. Message: no data\nhere'>", "no data"),
        ("<class 'KeyError'>:<''>", "no reason given"),
        ("", "no reason given"),
    ],
)
def test_the_reason_of_an_error_is_one_line_without_wrapping(said, meant):
    assert reason(Error(2, said)) == meant


def test_no_module_has_a_name_that_flower_leaves_out_of_an_app():
    import fnmatch
    from pathlib import Path

    from flwr.common.constant import FAB_EXCLUDE_PATTERNS

    import fedbatch

    root = Path(fedbatch.__file__).parents[1]
    modules = [str(path.relative_to(root)) for path in Path(fedbatch.__file__).parent.rglob("*.py")]
    lost = [m for m in modules for pattern in FAB_EXCLUDE_PATTERNS if fnmatch.fnmatch(m, pattern)]
    assert "fedbatch/server/rounds.py" in modules and lost == []
