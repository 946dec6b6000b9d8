import datetime
import decimal

import numpy as np
import pytest

N = 20
ODD = [i % 2 for i in range(N)]


@pytest.mark.parametrize(
    "values",
    [
        ODD,
        [bool(i) for i in ODD],
        [float(i) for i in ODD],
        [decimal.Decimal(i) for i in ODD],
        ["None" if i else "NA" for i in ODD],
        np.array(ODD, np.uint8),
        [10 * i - 7 for i in ODD],
    ],
)
def test_classes_are_the_sorted_values(load, values):
    data = load({"a": range(N), "y": values})
    assert data.num_classes == 2 and data.train_y.dtype == np.int64
    order = {
        value: k for k, value in enumerate(sorted({*map(str, values)} if isinstance(values[0], str) else {*values}))
    }
    row = np.argsort(np.argsort(np.concatenate([data.train_x, data.test_x])[:, 0]))
    got = np.concatenate([data.train_y, data.test_y])
    assert got.tolist() == [order[values[i]] for i in row]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([[i] for i in ODD], ["integers or strings", "list"]),
        ([{"q": i} for i in ODD], ["integers or strings", "struct"]),
        ([datetime.date(2020, 1, 1 + i) for i in ODD], ["integers or strings", "date32"]),
        ([i + 0.5 for i in ODD], ["a fraction in 20 of 20 rows"]),
        ([float("inf") if i == 3 else 1.0 for i in range(N)], ["a fraction in 1 of 20 rows (3,"]),
        ([None if i == 3 else 1 for i in range(N)], ["1 of 20 rows (3, counted from 0) of split train have no label"]),
        ([float("nan") if i == 3 else 1.0 for i in range(N)], ["1 of 20 rows (3,"]),
        ([None] * N, ["20 of 20 rows (0, 1, 2, 3, 4, ..., counted"]),
        (["same"] * N, ["all 20 rows are of one class (same)"]),
        ([*range(N)] * 2, ["40 values in 40 rows are no classes"]),
    ],
)
def test_what_is_no_class_is_refused_by_row(load, values, words):
    if len(values) > N:
        values = [i * i for i in range(len(values))]
    with pytest.raises(ValueError) as error:
        load({"a": range(len(values)), "y": values})
    assert "\n" not in str(error.value) and "dataset.label_column=y" in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_the_label_is_no_input(load):
    with pytest.raises(ValueError, match=r"dataset.input_column: y is the label_column"):
        load({"a": range(N), "y": ODD}, input_column=["a", "y"])


def test_owners(load):
    for values in ([i % 3 for i in range(N)], [f"u{i % 3}" for i in range(N)], [i % 3 * 1.0 for i in range(N)]):
        data = load({"a": range(N), "y": ODD, "u": values}, owner_column="u")
        row = np.argsort(np.argsort(np.concatenate([data.train_x, data.test_x])[:, 0]))[: len(data.owner)]
        assert data.owner.tolist() == [i % 3 for i in row]
    with pytest.raises(ValueError, match=r"dataset.owner_column=u: 1 of 20 rows \(7, .* have no owner"):
        load({"a": range(N), "y": ODD, "u": [None if i == 7 else 1 for i in range(N)]}, owner_column="u")
