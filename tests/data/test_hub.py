import subprocess
import sys
import time

import numpy as np
import pytest

from fedbatch.data.hub import hugging_face


@pytest.fixture
def people(tmp_path):
    """A csv file of 50 rows: two numbers, a constant, a text, a label and an owner."""
    rows = [
        f"{i},{i * i},7,{'good fine' if i % 2 else 'bad poor'} word{i},{'yes' if i % 2 else 'no'},u{i % 5}"
        for i in range(50)
    ]
    path = tmp_path / "people.csv"
    path.write_text("\n".join(["age,income,flat,text,bought,user", *rows]))
    return str(path)


def test_numbers_from_a_csv_file(people):
    data = hugging_face(people, input_column=["age", "income", "flat"], label_column="bought", owner_column="user")
    assert data.name == "people" and data.num_classes == 2
    assert data.train_x.shape == (40, 3) and data.test_x.shape == (10, 3) and data.train_x.dtype == np.float32
    np.testing.assert_allclose(data.train_x.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(data.train_x.std(0), [1, 1, 0], atol=1e-6)
    assert np.bincount(data.train_y).tolist() == [20, 20]  # "no" before "yes", as sorted
    assert sorted(set(data.owner)) == [0, 1, 2, 3, 4] and len(data.owner) == 40
    # undo the scaling: row i has label i % 2 and owner i % 5
    order = np.argsort(np.concatenate([data.train_x[:, 0], data.test_x[:, 0]]))
    row = np.empty(50, int)
    row[order] = np.arange(50)
    assert (data.train_y == row[:40] % 2).all() and (data.owner == row[:40] % 5).all()


def test_held_out_rows_are_always_the_same(people):
    first, second = (hugging_face(people, input_column="age", label_column="bought") for _ in range(2))
    assert np.array_equal(first.test_x, second.test_x)


def test_texts_become_hashed_word_counts(people):
    data = hugging_face(people, input_column="text", label_column="bought", text_features=64)
    assert data.train_x.shape == (40, 64) and data.train_x.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(data.train_x, axis=1), 1, atol=1e-5)
    centre = [data.train_x[data.train_y == label].mean(0) for label in (0, 1)]
    guesses = np.argmax(data.test_x @ np.stack(centre).T, axis=1)
    assert (guesses == data.test_y).all()


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_saved_images_with_their_own_test_split(tmp_path, mode, channels):
    import datasets
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (12, 4, 5, channels), np.uint8)
    images = [Image.fromarray(array.squeeze(-1) if mode == "L" else array) for array in pixels]
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = datasets.Dataset.from_dict({"img": images, "label": [0, 1] * 6}, features=features)
    folder = str(tmp_path / "pictures")
    datasets.DatasetDict(train=rows.select(range(8)), test=rows.select(range(8, 12))).save_to_disk(folder)

    data = hugging_face(folder, input_column="img", label_column="label")
    expected = pixels[:8].transpose(0, 3, 1, 2) / 255
    axes = (0, 2, 3)
    expected = (expected - expected.mean(axes, keepdims=True)) / expected.std(axes, keepdims=True)
    np.testing.assert_allclose(data.train_x, expected, atol=1e-5)
    assert data.test_x.shape == (4, channels, 4, 5) and data.train_y.tolist() == [0, 1] * 4 and data.owner is None


def test_folder_of_images_and_parquet_of_vectors(tmp_path):
    import datasets
    from PIL import Image

    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(np.full((3, 3), 50 * i, np.uint8)).save(tmp_path / "pets" / label / f"{i}.png")
    pets = hugging_face(str(tmp_path / "pets"), input_column="image", label_column="label")
    assert pets.train_x.shape == (8, 1, 3, 3) and pets.test_x.shape == (2, 1, 3, 3) and pets.num_classes == 2

    (tmp_path / "rows").mkdir()
    rows = datasets.Dataset.from_dict({"x": [[float(i), 1.0] for i in range(10)], "y": [3, 8] * 5})
    rows.to_parquet(str(tmp_path / "rows" / "all.parquet"))
    vectors = hugging_face(str(tmp_path / "rows"), input_column="x", label_column="y")
    assert vectors.train_x.shape == (8, 2) and sorted(set(vectors.train_y)) == [0, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input_column": "wage"}, ["no column wage", "age, income", "dataset.input_column"]),
        (
            {"train_split": "training", "source": "DICT"},
            ["no split training", "train", "dataset.train_split"],
        ),
        ({"test_split": "validation", "source": "DICT"}, ["no split validation", "dataset.test_split"]),
        ({"test_fraction": 1.5}, ["dataset.test_fraction", "1.5"]),
        ({"test_fraction": 0.001}, ["no test example", "raise dataset.test_fraction"]),
        ({"input_column": ["age", "text"]}, ["dataset.input_column=age,text", "numbers"]),
        (
            {"input_column": ["age", "gap"], "source": "GAPS"},
            ["dataset.input_column=age,gap", "fill or drop"],
        ),
        ({"label_column": "gap", "source": "GAPS"}, ["dataset.label_column=gap", "have no label"]),
        ({"label_column": "share", "source": "GAPS"}, ["dataset.label_column=share", "integers or strings"]),
        ({"source": "notes.txt"}, ["dataset.source", ".txt", ".csv, .parquet"]),
    ],
)
def test_bad_requests_are_refused_in_one_line(people, tmp_path, monkeypatch, change, words):
    import datasets

    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    rows = datasets.Dataset.from_dict({"age": [1, 2], "bought": [0, 1]})
    datasets.DatasetDict(train=rows, test=rows).save_to_disk("DICT")
    gaps = {"age": [1.0, 2.0], "gap": [1, None], "share": [0.5, 0.1], "bought": [0, 1]}
    datasets.Dataset.from_dict(gaps).save_to_disk("GAPS")
    with pytest.raises(ValueError) as error:
        hugging_face(**{"source": people, "input_column": "age", "label_column": "bought", **change})
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("offline", ["0", "1"])
def test_unreachable_hub_is_told_in_one_line_within_seconds(environment, offline):
    script = """
from fedbatch.data.hub import hugging_face
try:
    hugging_face("ylecun/mnist", input_column="image", label_column="label")
except ConnectionError as error:
    print(error)
"""
    # An address where nothing listens stands for the hub, so that the test is the same with a network.
    variables = {**environment, "HF_HUB_OFFLINE": offline, "HF_ENDPOINT": "http://127.0.0.1:9"}
    start = time.monotonic()
    run = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=True)
    assert time.monotonic() - start < 10
    for word in ("dataset.source=ylecun/mnist", "fashion_mini", "digits", "breast_cancer", "local folder"):
        assert word in run.stdout
    assert run.stdout.count("\n") == 1
