import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedbatch.runtime.local import LocalGrid, run_locally


def echo_app() -> ClientApp:
    app = ClientApp()

    @app.query()
    def query(message, context):
        if context.node_config["partition-id"] == 1:
            raise RuntimeError("node is broken")
        context.state["seen"] = ConfigRecord(
            {"times": context.state["seen"]["times"] + 1 if "seen" in context.state else 1}
        )
        content = {"who": context.node_config["partition-id"], "word": context.run_config["word"]}
        return Message(RecordDict({"r": ConfigRecord(content | dict(context.state["seen"]))}), reply_to=message)

    return app


def ask(grid, nodes):
    content = RecordDict({"r": ConfigRecord({"q": 1})})
    return [grid.create_message(content, "query", node, "0") for node in nodes]


def test_messages_reach_the_right_node_with_its_own_state():
    grid = LocalGrid(echo_app(), 3, {"word": "hi"})
    nodes = grid.get_node_ids()
    for times in (1, 2):
        replies = list(grid.send_and_receive(ask(grid, [nodes[2], nodes[0]])))
        assert [dict(r.content["r"]) for r in replies] == [
            {"who": 2, "word": "hi", "times": times},
            {"who": 0, "word": "hi", "times": times},
        ]
        assert [r.metadata.src_node_id for r in replies] == [nodes[2], nodes[0]]


def test_a_clients_exception_is_an_error_reply():
    grid = LocalGrid(echo_app(), 2, {"word": "hi"})
    (reply,) = grid.send_and_receive(ask(grid, grid.get_node_ids()[1:]))
    assert reply.has_error() and "node is broken" in reply.error.reason


def test_push_and_pull_hand_out_each_reply_once():
    grid = LocalGrid(echo_app(), 1, {"word": "hi"})
    ids = grid.push_messages(ask(grid, grid.get_node_ids() * 2))
    assert len(set(ids)) == 2
    first, second = grid.pull_messages(ids)
    assert first.metadata.reply_to_message_id == ids[0] and second.metadata.reply_to_message_id == ids[1]
    assert grid.pull_messages(ids) == []


def test_an_exception_of_the_server_app_comes_through():
    app = ServerApp()

    @app.main()
    def main(grid, context):
        raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        run_locally(app, echo_app(), 1, {})
