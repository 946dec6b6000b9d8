import dataclasses
import re

import numpy as np
import pytest
import torch

from fedbatch.core.errors import ConfigError
from fedbatch.data.check_dataset import checked
from fedbatch.data.dataset import Dataset
from fedbatch.setup import validate


def plain(**changes):
    """Three classes, 24 training and 12 test examples of two numbers; ``changes`` replace fields or map arrays."""
    y = np.arange(36) % 3
    x = np.stack([y + 0.25, np.arange(36)], axis=1).astype(np.float32)
    base = Dataset("plain", x[:24], y[:24], x[24:], y[24:], 3)
    return dataclasses.replace(base, **changes)


def each(change, names=("train_x", "test_x")):
    base = plain()
    return plain(**{name: change(getattr(base, name)) for name in names})


def labels(change, **more):
    base = plain()
    return plain(**{name: change(getattr(base, name)) for name in ("train_y", "test_y")}, **more)


def test_right_arrays_pass_without_a_copy():
    base = plain()
    data = checked(base)
    for name in ("train_x", "train_y", "test_x", "test_y"):
        assert np.shares_memory(getattr(data, name), getattr(base, name))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.float16),
        lambda x: x.astype(">f4"),
        lambda x: x.tolist(),
        lambda x: torch.from_numpy(x),
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: np.ma.masked_array(x),
        lambda x: np.broadcast_to(x, (1, *x.shape))[0],
        lambda x: x.astype(np.longdouble),
    ],
)
def test_inputs_of_any_real_type_keep_their_values(change):
    data = checked(each(change))
    for name in ("train_x", "test_x"):
        array = getattr(data, name)
        assert array.dtype == np.float32 and array.flags.c_contiguous and array.flags.writeable
        assert np.array_equal(array, getattr(plain(), name)), "all of these are exact in every one of the types"
        torch.from_numpy(array)  # warns of what cannot be written to


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint16, np.int32, bool])
def test_small_integers_are_numbers_and_are_not_rescaled(kind):
    data = checked(each(lambda x: x.astype(kind)))
    assert data.train_x.dtype == np.float32
    assert np.array_equal(data.train_x, plain().train_x.astype(kind).astype(float))


def test_integers_of_64_bits_are_tokens_and_others_with_a_label_a_position():
    assert checked(each(lambda x: x.astype(np.int64))).train_x.dtype == np.int64
    assert checked(each(lambda x: x.astype(np.uint64))).train_x.dtype == np.int64
    tokens = np.arange(36).reshape(12, 3) % 5
    small = Dataset("t", tokens[:8].astype(np.int32), tokens[:8], tokens[8:].astype(np.int32), tokens[8:], 5)
    data = checked(small)
    assert data.train_x.dtype == np.int64 and np.array_equal(data.train_x, tokens[:8])


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y.astype(np.int32),
        lambda y: y.astype(np.uint8),
        lambda y: y.astype(">i2"),
        lambda y: y.astype(np.float64),
        lambda y: y.tolist(),
        lambda y: torch.from_numpy(y),
        lambda y: y[:, None],
    ],
)
def test_whole_labels_of_any_type_become_int64(change):
    data = checked(labels(change))
    assert data.train_y.dtype == np.int64 and data.train_y.tolist() == [0, 1, 2] * 8


def test_truth_values_are_labels():
    data = checked(labels(lambda y: y > 0, num_classes=np.int64(2)))
    assert data.train_y.tolist() == [0, 1, 1] * 8 and type(data.num_classes) is int


def test_labels_of_positions_may_be_hidden_but_not_all():
    hidden = np.arange(36).reshape(12, 3) % 3
    hidden[:, 0] = -100
    x = np.arange(12.0, dtype=np.float32)[:, None]
    assert np.array_equal(checked(Dataset("s", x[:8], hidden[:8], x[8:], hidden[8:], 3)).train_y, hidden[:8])
    hidden[5] = -100
    with pytest.raises(ValueError, match=r"train_y has no label at any position in 1 of 8 rows \(5, counted"):
        checked(Dataset("s", x[:8], hidden[:8], x[8:], hidden[8:], 3))


def test_owners_of_any_kind():
    names = np.array(["b", "a"] * 12)
    assert checked(plain(owner=names)).owner.tolist() == [1, 0] * 12
    assert checked(plain(owner=np.arange(24.0))).owner.tolist() == list(range(24))
    assert checked(plain(owner=np.arange(24, dtype=np.int8))).owner.dtype == np.int64


def test_values_that_are_large_but_finite_go_on():
    assert checked(each(lambda x: x * np.float32(1e30))).train_x.max() > 1e31


def test_examples_of_classes_seen_in_no_training_are_told(caplog):
    base = plain()
    train = base.train_y.copy()
    train[train == 2] = 0
    checked(plain(train_y=train))
    assert "4 of 12 rows (2, 5, 8, 11, counted from 0) of the test split" in caplog.text and "[2]" in caplog.text


def test_labels_of_one_class_are_told(caplog):
    checked(plain(train_y=np.ones_like(plain().train_y)))
    assert "all of train_y is of one class (1)" in caplog.text


def poke(x, row, value):
    x = x.copy()
    x[row, 1] = value
    return x


X, Y = ("train_x",), ("train_y",)
REFUSED = {
    "tuple": (lambda: (1, 2), ["returned a tuple", "Dataset(name, train_x"]),
    "none": (lambda: None, ["returned a NoneType"]),
    "torch": (lambda: torch.utils.data.TensorDataset(torch.zeros(2)), ["returned a TensorDataset"]),
    "nan": (lambda: each(lambda x: poke(x, 7, np.nan), X), ["train_x is not a finite number in 1 of 24 rows (7,"]),
    "inf in test": (lambda: each(lambda x: poke(x, 3, -np.inf), ("test_x",)), ["test_x", "1 of 12 rows (3,"]),
    "masked": (lambda: each(lambda x: np.ma.masked_equal(x, 5), X), ["train_x is masked"]),
    "objects": (lambda: each(lambda x: x.astype(object)), ["train_x", "type object"]),
    "ragged": (lambda: plain(train_x=[[1.0], [1.0, 2.0]]), ["train_x has 2 examples and train_y 24"]),
    "text": (lambda: each(lambda x: x.astype(str)), ["train_x holds text"]),
    "complex": (lambda: each(lambda x: x.astype(complex)), ["type complex128"]),
    "bfloat16": (lambda: each(lambda x: torch.from_numpy(x).bfloat16()), ["cannot become a NumPy array"]),
    "flat": (lambda: each(lambda x: x[:, 0]), ["train_x[:, None]"]),
    "no features": (lambda: each(lambda x: x[:, :0]), ["train_x holds no example (shape (24, 0))"]),
    "beyond float32": (lambda: each(lambda x: x.astype(float) * 1e39), ["beyond the range of float32", "23 of 24"]),
    "times": (lambda: each(lambda x: 1.7e12 + x.astype(float) * 1e3), ["varies too little for float32", "feature 0"]),
    "negative tokens": (lambda: each(lambda x: x.astype(np.int64) - 2), ["tokens", "negative", "np.float32"]),
    "tokens and numbers": (lambda: each(lambda x: x.astype(np.int64), X), ["train_x is int64 and test_x float32"]),
    "shapes": (lambda: each(lambda x: x[:, :1], X), ["shape (1,)", "test_x (2,)"]),
    "lengths": (lambda: each(lambda y: y[:-1], Y), ["train_x has 24 examples and train_y 23"]),
    "no test": (lambda: plain(test_x=np.zeros((0, 2)), test_y=np.zeros(0)), ["test_x holds no example"]),
    "from one": (lambda: labels(lambda y: y + 1), ["1 to 3", "take y - 1"]),
    "signs": (lambda: labels(lambda y: np.where(y > 0, 1, -1), num_classes=2), ["take (y + 1) // 2"]),
    "gaps": (lambda: labels(lambda y: y * 10), ["0 to 20", "without gaps"]),
    "few classes": (lambda: plain(num_classes=2), ["raise num_classes to 3"]),
    "one class": (lambda: labels(lambda y: y * 0, num_classes=1), ["num_classes must be a whole number of at least 2"]),
    "classes in words": (lambda: plain(num_classes="3"), ["num_classes"]),
    "fractions": (lambda: labels(lambda y: y + 0.5), ["train_y is no whole number in 24 of 24 rows"]),
    "nan label": (lambda: plain(train_y=np.where(np.arange(24) == 4, np.nan, 0)), ["1 of 24 rows (4,"]),
    "words": (lambda: labels(lambda y: y.astype(str)), ["np.unique(train_y, return_inverse=True)[1]"]),
    "one-hot": (lambda: labels(lambda y: np.eye(3)[y]), ["one-hot", "argmax(axis=1)"]),
    "masks": (lambda: labels(lambda y: y[:, None, None] * np.ones((1, 4, 4))), ["shape (24, 4, 4)", "positions"]),
    "other class": (lambda: labels(lambda y: y * 0 + (len(y) == 12)), ["12 of 12 rows", "no training example has"]),
    "short owner": (lambda: plain(owner=np.zeros(23, int)), ["owner has shape (23,)"]),
    "owner nan": (lambda: plain(owner=np.full(24, np.nan)), ["owner is no whole number"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_told_in_one_line(name):
    make, words = REFUSED[name]
    with pytest.raises(ValueError) as error:
        checked(make())
    assert "\n" not in str(error.value) and str(error.value).startswith("dataset: ")
    for word in words:
        assert re.search(re.escape(word), str(error.value)), str(error.value)


def test_whatever_a_target_raises_is_one_line_with_its_place(make_config, tmp_path, monkeypatch):
    (tmp_path / "faulty.py").write_text("def make():\n    return {}['nothing\\nhere']\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = dataclasses.replace(make_config(), dataset={"_target_": "faulty.make"})
    with pytest.raises(ConfigError) as error:
        validate.data(config.to_json())
    assert "\n" not in str(error.value)
    assert re.match(r"dataset: faulty.make fails with KeyError: .*faulty.py:2\)", str(error.value))
