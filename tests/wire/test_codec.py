import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedbatch.wire.check import MessageError
from fedbatch.wire.codec import ByReference, Encoder, array_bytes, decode, decode_measured, encode, reply
from fedbatch.wire.messages import Contribution, Hosted, TrainPlan


def contribution(size: int = 3) -> Contribution:
    return Contribution(
        update_sum=torch.arange(size, dtype=torch.float32),
        buffer_sum=torch.zeros(0),
        unit_sum=torch.zeros(0),
        clients=np.array([2, 5]),
        weights=np.array([4.0, 8.0]),
        num_examples=np.array([4, 8]),
        sq_norms=np.array([1.0, 2.0]),
        losses=np.array([0.5, 0.25]),
        half_dots=np.zeros(0),
        half_sq_diffs=np.zeros(0),
        excluded=np.zeros(0, np.int64),
    )


def test_round_trip():
    plan = TrainPlan(torch.ones(3), torch.zeros(0), np.array([1, 4]), np.array([2, 2]), 7, "small", True, False, "auto")
    back = decode(TrainPlan, encode(plan), {"params": 3})
    assert torch.equal(back.params, plan.params) and np.array_equal(back.clients, plan.clients)
    assert (back.round, back.phase, back.halves, back.cosine) == (7, "small", True, False)


@pytest.mark.parametrize("values", [np.arange(7, dtype=np.float32), np.zeros(0), np.arange(3)])
def test_arrays_are_the_bytes_that_numpy_would_save(values):
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    hosted = encode(Hosted(np.arange(len(values)), values))
    assert hosted["clients"]["num_examples"].data == buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"update_sum": torch.zeros(4)}, "update_sum must have length 3"),
        ({"update_sum": torch.zeros(3, dtype=torch.float16)}, "update_sum must be float32"),
        ({"update_sum": torch.tensor([1.0, float("nan"), 0.0])}, "update_sum has values that are not finite"),
        ({"update_sum": torch.zeros(3, 1)}, "update_sum must be a vector"),
        ({"clients": np.array([5, 2])}, "ascending"),
        ({"clients": np.array([5, 5])}, "distinct"),
        ({"clients": np.array([2, 5, 9])}, "one entry for each of 3 clients"),
        ({"clients": np.array([-2, 5])}, "clients must not be negative"),
        ({"weights": np.array([1.0, np.inf])}, "weights has values that are not finite"),
        ({"weights": np.array([1.0, 0.0])}, "weights must be positive"),
        ({"weights": np.array([1, 2])}, "weights must be float64"),
        ({"sq_norms": np.array([1.0, -2.0])}, "sq_norms must not be negative"),
        ({"losses": np.array([1.0])}, "losses must have one entry"),
        ({"half_dots": np.array([1.0])}, "half_dots must have one entry"),
        ({"num_examples": np.array([4.0, 8.0])}, "num_examples must be int64"),
    ],
)
@pytest.mark.parametrize("carried", [encode, ByReference])
def test_what_the_schema_does_not_allow_is_refused_by_name(change, field, carried):
    message = carried(replace(contribution(), **change))
    with pytest.raises(MessageError, match=field):
        decode(Contribution, message, {"update_sum": 3})


def test_a_message_by_reference_is_the_message_itself_and_its_answer_comes_so_too():
    given = contribution()
    question = ByReference(given)
    assert decode(Contribution, question, {"update_sum": 3}) is given
    assert isinstance(reply(given, question), ByReference) and not isinstance(reply(given, encode(given)), ByReference)
    with pytest.raises(MessageError, match="expected a TrainPlan"):
        decode(TrainPlan, question)
    wrong = replace(given, executor=3)
    with pytest.raises(MessageError, match="executor must be a str"):
        decode(Contribution, ByReference(wrong))


@pytest.mark.parametrize("carried", [encode, ByReference])
@pytest.mark.parametrize("values", [[3.0, 4.0, 0.0], [1e30, -1e30, 0.0], [1e-30, 0.0, 0.0]])
def test_the_squared_lengths_of_vectors_come_with_a_message(carried, values):
    message = replace(contribution(), update_sum=torch.tensor(values), unit_sum=torch.zeros(0))
    _, squares = decode_measured(Contribution, carried(message), {"update_sum": 3})
    exact = float(np.square(message.update_sum.numpy().astype(np.float64)).sum())
    assert squares["update_sum"] == pytest.approx(exact, rel=1e-6, abs=1e-38)
    assert "unit_sum" not in squares


def test_an_array_that_several_plans_share_is_written_down_once():
    params, encoder = torch.ones(3), Encoder()
    plans = [
        TrainPlan(params, torch.zeros(0), np.array([k]), np.array([2]), 7, "a", True, False, "auto") for k in (1, 4)
    ]
    first, second = (encoder(plan) for plan in plans)
    assert first["arrays"]["params"].data is second["arrays"]["params"].data
    assert decode(TrainPlan, second).clients.tolist() == [4]


def test_bytes_of_a_message_are_those_that_are_written_down():
    given = contribution()
    records = encode(given).array_records.values()
    assert array_bytes(given) == sum(len(array.data) for record in records for array in record.values())


def test_wrong_keys_kinds_and_versions_are_refused():
    good = encode(contribution())
    with pytest.raises(MessageError, match="expected a TrainPlan"):
        decode(TrainPlan, good)
    with pytest.raises(MessageError, match="records must be"):
        decode(Contribution, RecordDict({"arrays": ArrayRecord(), "plan": ConfigRecord()}))
    del good["arrays"]["unit_sum"]
    with pytest.raises(MessageError, match="unit_sum"):
        decode(Contribution, good)
    old = encode(contribution())
    old["plan"]["schema"] = 0
    with pytest.raises(MessageError, match="schema"):
        decode(Contribution, old)


def test_a_vector_in_the_place_of_a_column_is_refused():
    message = encode(contribution())
    message["arrays"]["losses"] = message["clients"].pop("losses")
    with pytest.raises(MessageError, match="losses"):
        decode(Contribution, message)


def test_unreadable_bytes_are_refused():
    message = encode(contribution())
    message["arrays"]["update_sum"] = Array(dtype="float32", shape=(3,), stype="numpy.ndarray", data=b"\x00garbage")
    with pytest.raises(MessageError, match="update_sum is not a readable array"):
        decode(Contribution, message)


def test_a_pickled_array_is_never_loaded():
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    message = encode(contribution())
    message["arrays"]["update_sum"] = Array(dtype="object", shape=(1,), stype="numpy.ndarray", data=buffer.getvalue())
    with pytest.raises(MessageError, match="update_sum is not a readable array"):
        decode(Contribution, message)
