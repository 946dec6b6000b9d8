import re

import numpy as np
import pytest
import torch

from fedbatch.core.layout import Layout, Part
from fedbatch.data.check_dataset import checked
from fedbatch.data.dataset import Dataset
from fedbatch.data.label_rules import CLASSES
from fedbatch.data.pack import WHOLE
from fedbatch.data.pools import long_tail, redundant
from fedbatch.models.adapted import Call, arguments
from fedbatch.setup.learning import rule_of, said_by

RNG = np.random.default_rng(0)
IDS, MASK, IMAGE = (
    RNG.integers(0, 50, (30, 7)),
    RNG.random((30, 7)) < 0.5,
    RNG.normal(size=(30, 2, 3)),
)
Y = np.arange(30) % 3


def of(x, y=Y, cut=20, **more):
    """A data set whose first 20 examples are for training."""
    if isinstance(x, dict):
        train, test = ({k: v[part] for k, v in x.items()} for part in (slice(cut), slice(cut, None)))
    elif isinstance(x, tuple):
        train, test = (tuple(v[part] for v in x) for part in (slice(cut), slice(cut, None)))
    else:
        train, test = x[:cut], x[cut:]
    return Dataset("packed", train, y[:cut], test, y[cut:], 3, **more)


def given(data, asks=lambda a=None, attention_mask=None: None, split="train_x"):
    """What a model is called with."""
    return arguments(Call(asks, data.layout, None), torch.from_numpy(getattr(data, split)))


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_arrays_by_name_arrive_as_they_were_given(kind):
    x = {"ids": kind(IDS), "mask": kind(MASK), "image": kind(IMAGE), "age": kind(np.arange(30.0)), "row": kind(Y)}
    data = checked(of(x))
    assert data.train_x.dtype == np.float32 and data.train_x.shape == (20, 7 + 7 + 6 + 1 + 1)
    for split, rows in (("train_x", slice(20)), ("test_x", slice(20, None))):
        positional, named = given(data, split=split)
        assert not positional and list(named) == list(x)
        assert named["ids"].dtype == torch.int64 and np.array_equal(named["ids"], IDS[rows])
        assert named["mask"].dtype == torch.bool and np.array_equal(named["mask"], MASK[rows])
        assert np.array_equal(named["image"], IMAGE[rows].astype(np.float32)) and named["image"].is_contiguous()
        assert np.array_equal(named["age"], np.arange(30.0)[rows]) and np.array_equal(named["row"], Y[rows])
    assert data.layout.shapes == {"ids": (7,), "mask": (7,), "image": (2, 3), "age": (), "row": ()}


def test_whole_numbers_alone_stay_whole_however_large():
    huge = IDS.astype(np.int64) + 2**53 + 1
    data = checked(of((huge, MASK)))
    assert data.train_x.dtype == np.int64
    positional, named = given(data)
    assert not named and np.array_equal(positional[0], huge[:20]) and positional[1].dtype == torch.bool
    assert data.layout.shapes == ((7,), (7,))


def test_sequences_are_padded_to_the_longest_of_both_splits_and_the_mask_goes_to_who_asks():
    lengths = 1 + RNG.integers(0, 4, 30)
    lengths[25] = 9  # the longest is in the test split
    rows = [RNG.integers(1, 50, n) for n in lengths]
    data = checked(of(rows, pad=49))
    (ids,), named = given(data)
    assert ids.shape == (20, 9) and data.layout.shapes == (9,) and named["attention_mask"].dtype == torch.int64
    for row, found, mask in zip(rows, ids, named["attention_mask"], strict=False):
        assert found.tolist() == [*row.tolist(), *[49] * (9 - len(row))]
        assert mask.tolist() == [1] * len(row) + [0] * (9 - len(row))
    assert given(data, asks=lambda x: None)[1] == {}
    assert list(given(data, asks=lambda x, **more: None)[1]) == ["attention_mask"]
    lists = checked(of([row.tolist() for row in rows], pad=49))
    assert np.array_equal(lists.train_x, data.train_x)
    by_name = checked(of({"input_ids": np.array(rows, object), "kind": [np.zeros(n) for n in lengths]}, pad=49))
    assert by_name.layout.shapes == {"input_ids": (9,), "kind": (9,)} and by_name.layout.parts[-1].is_optional


def test_labels_of_positions_are_padded_with_what_has_no_label():
    rows = [RNG.integers(0, 3, 1 + i % 4) for i in range(30)]
    data = checked(of(rows, y=rows))
    assert data.train_y.shape == (20, 4) and data.train_y[0].tolist() == [rows[0][0], -100, -100, -100]
    assert rule_of(said_by(of(rows, y=rows))) is CLASSES


def test_what_the_labels_say_does_not_depend_on_the_form_of_inputs():
    numbers, pixels = RNG.normal(size=30), RNG.integers(0, 3, (30, 4, 4))
    image = RNG.normal(size=(30, 1, 4, 4))
    for x in ({"image": image}, (image,)):
        data = of(x, y=numbers)
        assert said_by(Dataset("n", data.train_x, numbers[:20], data.test_x, numbers[20:]))["_target_"].endswith(
            "Regression"
        )
        assert said_by(of(x, y=pixels))["_target_"].endswith("Segmentation")


REFUSED = {
    "other rows": (lambda: of({"a": IDS, "b": MASK[:25]}), ["test_x['b'] has 5 examples and test_y 10"]),
    "other names": (
        lambda: Dataset("d", {"a": IDS[:20]}, Y[:20], {"b": IDS[20:]}, Y[20:], 3),
        ["train_x has a and test_x b"],
    ),
    "other shapes": (
        lambda: Dataset("d", {"a": IDS[:20]}, Y[:20], {"a": IDS[20:, :5]}, Y[20:], 3),
        ["train_x['a'] is (7,) of int64 and of test (5,) of int64"],
    ),
    "nested": (lambda: of({"a": [{}] * 30}), ["train_x['a']"]),
    "no name": (lambda: of({"a b": IDS}), ["'a b'"]),
    "empty": (lambda: Dataset("d", {}, Y[:20], {}, Y[20:], 3), ["keys []"]),
    "text": (lambda: of({"a": IDS.astype(str)}), ["train_x['a'] is a ndarray of type <U"]),
    "not a number": (
        lambda: of({"a": np.where(IDS[3, 0] == IDS, np.nan, IDS)}),
        ["train_x['a'] is not a finite number"],
    ),
    "no sequence": (lambda: of([np.zeros(1 + i % 3) for i in range(29)] + [np.zeros(0)]), ["test_x has shape (0,)"]),
    "sequences of images": (lambda: of([np.zeros((1 + i % 3, 2)) for i in range(30)]), ["train_x has shape (1, 2)"]),
    "two lengths": (
        lambda: of({"a": [np.zeros(1 + i % 3) for i in range(30)], "b": [np.zeros(1 + i % 4) for i in range(30)]}),
        ["sequences of b and a have other lengths"],
    ),
    "pad": (lambda: of([np.zeros(1 + i % 3, int) for i in range(30)], pad=0.5), ["pad must be a whole number"]),
    "beyond int64": (lambda: of({"a": IDS.astype(np.uint64) + 2**63}), ["train_x['a'] goes beyond 9,223,372"]),
    "long and beyond int64": (
        lambda: of([np.full(1 + i % 3, 2**63 + 5, np.uint64) for i in range(30)]),
        ["goes beyond 9,223,372"],
    ),
    "smallest of all": (lambda: of({"a": IDS * 0 + np.iinfo(np.int64).min, "b": IMAGE}), ["goes beyond 16,777,216"]),
    "masked": (lambda: of({"a": np.ma.masked_equal(IDS, IDS[3, 0])}), ["train_x['a'] is masked in places"]),
    "large beside fractions": (
        lambda: of({"a": IDS + WHOLE, "b": IMAGE}),
        ["train_x['a'] goes beyond 16,777,216", "np.unique"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_row_is_told_in_one_line(name):
    make, words = REFUSED[name]
    with pytest.raises(ValueError) as error:
        checked(make())
    assert "\n" not in str(error.value) and str(error.value).startswith("dataset: ")
    for word in words:
        assert re.search(re.escape(word), str(error.value)), str(error.value)


def test_numbers_to_predict_are_never_padded():
    rows = [RNG.normal(size=1 + i % 4) for i in range(30)]
    with pytest.raises(ValueError, match="train_y"):
        checked(of(rows, y=rows), rule_of({"_target_": "fedbatch.tasks.Regression"}))


def test_pools_are_of_one_array():
    for made in (lambda: long_tail(of({"a": IDS}), 2.0), lambda: redundant(of((IDS,)), 5, 10, 0.1)):
        with pytest.raises(ValueError, match="takes examples that are one array each, and packed has other ones"):
            made()


def test_a_layout_is_words_for_messages():
    layout = Layout((Part(0, (3,), "int", True), Part("attention_mask", (3,), "int", True, True)))
    assert layout.in_words == "input 0 (3,)" and layout.shapes == (3,)
