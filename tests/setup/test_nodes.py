import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fedbatch import client_app, server_app
from fedbatch.core.errors import ConfigError
from fedbatch.runtime.flower import SERVER_NODE_ID, new_context, new_run, stamp
from fedbatch.runtime.local import LocalGrid
from fedbatch.setup.nodes import hosted_clients, on_own_data
from fedbatch.wire.codec import decode
from fedbatch.wire.messages import Hosted

pytestmark = pytest.mark.filterwarnings(r"ignore:unclosed file .*\.csv:ResourceWarning")  # of datasets


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_client_lives_on_one_node(count):
    shares = [hosted_clients(7, {"partition-id": i, "num-partitions": count}) for i in range(count)]
    assert np.array_equal(np.concatenate(shares), np.arange(7))


@pytest.mark.parametrize(
    ("node_config", "line"),
    [
        ({"num-partitions": 2}, "node-config lacks partition-id"),
        ({"partition-id": 0}, "node-config lacks num-partitions"),
        ({"partition-id": 2, "num-partitions": 2}, r"partition-id must be in 0 .. 1 \(got 2\)"),
    ],
)
def test_a_node_says_which_share_it_hosts(node_config, line):
    with pytest.raises(ConfigError, match=line):
        hosted_clients(10, node_config)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Data of two parties, 30 and 50 rows, of which 20 % are held out; and of the server."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    rng = np.random.default_rng(0)
    made = []
    for name, rows in {"server": 20, "a": 30, "b": 50}.items():
        (tmp_path / name).mkdir()
        table = np.column_stack([rng.normal(size=(rows, 2)), np.arange(rows) % 2])
        lines = ["p,q,label", *(f"{p},{q},{int(label)}" for p, q, label in table)]
        (tmp_path / name / "train.csv").write_text("\n".join(lines) + "\n")
        made.append(str(tmp_path / name))
    return made


@pytest.fixture
def config(make_config, folders):
    source = ("dataset=hugging_face", f"dataset.source={folders[0]}", "dataset.input_column=[p,q]")
    sizes = ("population=4", "cohort_size=4", "client_batch_size=4", "rounds=2")
    return make_config(*source, *sizes, "nodes=2", "model=logistic", "controller=fixed", base=())


def test_clients_share_what_lies_on_their_node(config, folders):
    new_run()
    question = stamp(Message(RecordDict({"q": ConfigRecord({"ask": "hosted"})}), 7, "query"), "m")
    sizes = {}
    for index, data in enumerate(folders[1:]):
        node_config = {"partition-id": index, "num-partitions": 2, "data": data}
        context = new_context(1, 7, node_config, {"config": config.to_json()})
        answer = decode(Hosted, client_app.app(question, context).content)
        sizes |= dict(zip(answer.clients.tolist(), answer.num_examples.tolist(), strict=True))
    assert sizes == {0: 12, 1: 12, 2: 20, 3: 20}


def test_a_run_over_nodes_with_data_of_their_own(config, folders, tmp_path):
    run_config = {"config": config.to_json()}
    grid = LocalGrid(client_app.app, 2, run_config)
    for context, data in zip(grid._contexts.values(), folders[1:], strict=True):
        context.node_config["data"] = data
    server_app.app(grid, new_context(1, SERVER_NODE_ID, {}, run_config))
    assert len((tmp_path / "run" / "rounds.jsonl").read_text().splitlines()) == 2


def test_clients_of_another_node_are_refused(config, folders):
    context = new_context(
        1, 7, {"partition-id": 1, "num-partitions": 2, "data": folders[2]}, {"config": config.to_json()}
    )
    partition = client_app.load(context).partition
    assert partition.lookup(np.array([2]), np.array([0])).shape == (1,)
    with pytest.raises(IndexError):
        partition.lookup(np.array([1]), np.array([0]))


def test_own_data_needs_a_data_set_that_lies_in_a_folder(make_config):
    with pytest.raises(ConfigError, match="use dataset=hugging_face"):
        on_own_data(make_config(), {"partition-id": 0, "num-partitions": 1, "data": "/data"})


def test_own_data_of_a_node_without_clients(config):
    with pytest.raises(ConfigError, match="no client of the 4 is left for this node"):
        on_own_data(config, {"partition-id": 5, "num-partitions": 6, "data": "/data"})
