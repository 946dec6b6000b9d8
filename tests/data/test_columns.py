import datetime
import decimal
import json

import numpy as np
import pyarrow as pa
import pytest

from fedbatch.data.hub import hugging_face

N = 20
Y = [i % 2 for i in range(N)]
DAY = datetime.date(2020, 1, 1)
MIDNIGHT = datetime.datetime(2020, 1, 1)


@pytest.mark.parametrize(
    "values",
    [
        pa.array(range(N), pa.int8()),
        pa.array([2**63 + i for i in range(N)], pa.uint64()),
        pa.array(np.arange(N, dtype=np.float16)),
        pa.array([decimal.Decimal(i) / 8 for i in range(N)]),
        pa.array([MIDNIGHT + datetime.timedelta(days=i) for i in range(N)], pa.timestamp("ns")),
        pa.array([MIDNIGHT + datetime.timedelta(hours=i) for i in range(N)], pa.timestamp("us", "Asia/Tokyo")),
        pa.array([DAY + datetime.timedelta(days=i) for i in range(N)]),
        pa.array([datetime.time(1, i) for i in range(N)]),
        pa.array([datetime.timedelta(seconds=i) for i in range(N)]),
        pa.array([str(i) for i in range(N)]),
        pa.array([[float(i)] for i in range(N)]),
        pa.array(1e9 + 1e-5 * np.arange(N)),
    ],
    ids=lambda values: str(values.type),
)
def test_every_kind_of_number_is_standardised_before_it_is_narrowed(load, values):
    data = load({"a": values, "y": Y})
    x = np.sort(np.concatenate([data.train_x, data.test_x])[:, 0])
    # 1e9 + 1e-5 is known to 1.2e-7 only, of steps of 1e-5
    np.testing.assert_allclose((x - x[0]) / (x[-1] - x[0]) * (N - 1), range(N), atol=0.02)


def test_integers_over_the_whole_range(load):
    values = np.array([(-1) ** i * (2**62 + i) for i in range(N)], np.int64)
    x = load({"a": values, "y": Y}).train_x
    assert sorted({*x[:, 0].tolist()}) == [-1, 1]


def test_vectors_and_matrices(load):
    data = load({"a": [[[i, 1], [2.5 * i, 3]] for i in range(N)], "y": Y})
    assert data.train_x.shape == (16, 4) and not data.train_x[:, [1, 3]].any()
    np.testing.assert_allclose(data.train_x[:, 0], data.train_x[:, 2], rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (pa.nulls(N), ["is empty"]),
        ([{"q": 1}] * N, ["struct<q: int64>"]),
        ([b"abc"] * N, ["binary"]),
        ([[i] * (1 + (i == 4)) for i in range(N)], ["another length in 1 of 20 rows (4,"]),
        ([[i, None if i == 4 else 1] for i in range(N)], ["no value of a in 1 of 20 rows (4,"]),
        ([None if i == 4 else [i] for i in range(N)], ["no vector in 1 of 20 rows (4,"]),
        ([["a"]] * N, ["it holds string"]),
        ([float("inf") if i == 4 else i for i in range(N)], ["infinite in 1 of 20 rows (4,"]),
        ([float("nan") if i == 4 else i for i in range(N)], ["no value of a in 1 of 20 rows (4,"]),
        ([None if i == 4 else MIDNIGHT for i in range(N)], ["no value of a in 1 of 20 rows (4,"]),
    ],
)
def test_other_columns_are_refused_by_name_and_row(load, values, words):
    with pytest.raises(ValueError) as error:
        load({"a": values, "y": Y})
    assert "\n" not in str(error.value) and "dataset.input_column=a" in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_values_of_several_kinds_in_json(tmp_path):
    path = tmp_path / "rows.jsonl"
    for mixed, field in (("a", "dataset.input_column=a"), ("y", "dataset.label_column=y")):
        rows = [{"a": i, "y": i % 2} | ({mixed: "x"} if i % 3 else {}) for i in range(N)]
        path.write_text("\n".join(map(json.dumps, rows)))
        with pytest.raises(ValueError, match=rf"{field}.*several kinds"):
            hugging_face(str(path), input_column="a", label_column="y")
