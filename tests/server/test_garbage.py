"""A node that answers with what is no answer at all, whole runs long: the others go on, and the record counts."""

import io

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedbatch.runtime.local import LocalGrid
from fedbatch.server import exchange
from tests.conftest import run

SETTINGS = "nodes=4 population=8 cohort_size=8 sampling=all controller=fixed rounds=2 executor=fused".split()


def npy(header):
    """The bytes of a NumPy file with this header and 8 bytes of data."""
    text = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(8)


def with_update(content, array):
    """The answer with its update replaced."""
    arrays = dict(content.array_records["arrays"]) | {"update_sum": array}
    return RecordDict({**content, "arrays": ArrayRecord(arrays)})


def with_plan(content, **values):
    return RecordDict({**content, "plan": ConfigRecord({**content.config_records["plan"], **values})})


def pickled():
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return Array("object", (1,), "numpy.ndarray", file.getvalue())


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
GARBAGE = {
    "nothing": lambda content: RecordDict(),
    "other records": lambda content: RecordDict({"metrics": MetricRecord({"loss": 0.0}), "x": ArrayRecord({})}),
    "records of another kind": lambda content: RecordDict({**content, "plan": ArrayRecord({})}),
    "a million keys": lambda content: with_plan(content, **{f"k{i}": i for i in range(10**5)}),
    "a schema of another version": lambda content: with_plan(content, schema=1),
    "a schema that is a text": lambda content: with_plan(content, schema="7" * 10**6),
    "an array of a trillion numbers": lambda content: with_update(
        content, Array("float32", (10**12,), "numpy.ndarray", npy(HUGE))
    ),
    "a hundred megabytes": lambda content: with_update(content, Array(np.zeros(25 * 10**6, np.float32))),
    "no bytes": lambda content: with_update(content, Array("float32", (3,), "numpy.ndarray", b"")),
    "random bytes": lambda content: with_update(content, Array("float32", (3,), "numpy.ndarray", bytes(range(256)))),
    "a pickle": lambda content: with_update(content, pickled()),
    "of another library": lambda content: with_update(content, Array("float32", (3,), "torch.Tensor", bytes(12))),
    "complex numbers": lambda content: with_update(content, Array(np.zeros(3, np.complex64))),
    "an error": lambda content: Error(2, "\x1b[31m" + "x" * 10**6),
    "an error without a reason": lambda content: Error(0),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_left_out_and_counted(make_config, monkeypatch, caplog, kind):
    original, loud = LocalGrid._deliver, []

    def spoiled(self, message):
        reply = original(self, message)
        if message.metadata.message_type == "train" and message.metadata.dst_node_id == 3:
            answer = GARBAGE[kind](reply.content)
            loud.append(answer)
            reply = Message(answer, reply_to=message)
        return reply

    exchange.news.cache_clear()
    monkeypatch.setattr(LocalGrid, "_deliver", spoiled)
    rows, summary, _ = run(make_config(*SETTINGS, "runtime.by_reference=false"))
    assert len(loud) == 2 and summary["status"] == "finished"
    assert [(row["rejected_replies"], row["cohort_size"]) for row in rows] == [(1, 6), (1, 6)]
    told = [record.getMessage() for record in caplog.records if "was left out" in record.getMessage()]
    assert len(told) == 1 and told[0].startswith("an answer of node 3 (clients 2 to 3) was left out: ")
    assert len(told[0]) < 1200 and told[0].isprintable()
