"""Hundreds of generated data sets: each is loaded rightly, by an independent computation, or refused in one line."""

import dataclasses
import json
import pickle
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fedbatch.core.errors import ConfigError
from fedbatch.data.dataset import Dataset
from fedbatch.setup import validate
from tests.conftest import run

TRAIN, TEST = 36, 12
ROWS = TRAIN + TEST
TABLES, IMAGES, OWN = 180, 60, 160


def scaled(values):
    """Standardised by the training rows, with twice the digits; a constant becomes 0."""
    values = np.asarray(values, np.longdouble)
    train = values[:TRAIN]
    if (train == train[0]).all():
        return np.zeros((ROWS, 1))
    std = np.sqrt(np.mean((train - train.mean()) ** 2))
    return ((values - train.mean()) / std).astype(float)[:, None]


def column(draw):
    """Values of one column and what they become."""
    noise = draw.integers(-1000, 1000, ROWS)
    kind = draw.choice(["float", "times", "ids", "tiny", "huge", "constant", "category", "truth", "dates"])
    if kind == "category":
        words = draw.choice(["red", "NA", "None", "blue", "x y"], ROWS)
        words[:5] = ["red", "NA", "None", "blue", "x y"]
        return [*map(str, words)], pd.get_dummies(pd.Series(words)).to_numpy(float)
    if kind == "truth":
        return [bool(value > 0) for value in noise], scaled(noise > 0)
    if kind == "dates":
        days = [str(pd.Timestamp("2001-01-01") + pd.Timedelta(days=int(value)))[:10] for value in noise]
        return days, scaled(noise)
    if kind in ("times", "ids"):
        offset = 1_700_000_000_000 if kind == "times" else 2**60
        return [offset + int(value) for value in noise], scaled(noise)
    factor = {"float": 0.125, "tiny": 2.0**-1000, "huge": 2.0**900, "constant": 0}[str(kind)]
    return [float(value) * factor + (0.1 if kind == "constant" else 0) for value in noise], scaled(noise * (factor > 0))


def labels(draw):
    """Labels of one kind and their classes."""
    names = [[0, 1, 2], [1, 2, 10], ["None", "NA", "mild"], [False, True], [0.0, 1.0], [-1, 1], ["null", "nan"]]
    chosen = names[draw.integers(len(names))]
    y = draw.integers(len(chosen), size=ROWS)
    y[: len(chosen)] = range(len(chosen))
    order = sorted(chosen)
    return [chosen[k] for k in y], np.array([order.index(chosen[k]) for k in y])


def spoil(draw, values, y, form):
    """Perhaps one fault that must be refused; the columns changed in place."""
    row, name = int(draw.integers(ROWS)), str(draw.choice([*values]))
    number = isinstance(values[name][0], float | int) and not isinstance(values[name][0], bool)
    fault = str(
        draw.choice(["none", "none", "missing", "no label", "infinite", "word", "comma", "one class", "fraction"])
    )
    if fault == "missing":
        values[name][row] = None
    elif fault == "no label":
        y[row] = None
    elif fault == "infinite" and number:
        values[name] = [float(value) for value in values[name]]
        values[name][row] = float("inf")
    elif fault == "word" and number and form != "parquet":
        values[name][row] = "foo"
    elif fault == "comma" and number:
        values[name] = [f"{value},5" for value in values[name]]
    elif fault == "one class":
        y[:] = [y[0]] * ROWS
    elif fault == "fraction" and not isinstance(y[0], str):
        y[:] = [float(value) for value in y]
        y[row] = 0.5
    else:
        return False
    return True


def write_table(draw, folder, values, y, form):
    frame = {**values, "y": y}
    for split, rows in (("train", slice(TRAIN)), ("test", slice(TRAIN, None))):
        path = folder / f"{split}.{form}"
        part = {name: each[rows] for name, each in frame.items()}
        if form == "parquet":
            pd.DataFrame(part).to_parquet(path)
        elif form == "jsonl":
            count = len(part["y"])
            path.write_text("\n".join(json.dumps({name: part[name][i] for name in part}) for i in range(count)))
        else:
            separator, start = str(draw.choice([*",;\t"])), str(draw.choice(["", "\ufeff"]))
            text = pd.DataFrame({name: pd.Series(each, dtype=object) for name, each in part.items()})
            path.write_text(start + text.to_csv(index=False, sep=separator), encoding="utf-8")


def load(make_config, **dataset):
    config = dataclasses.replace(
        make_config("population=8", "model=logistic", "controller=fixed", "rounds=1"), dataset=dataset
    )
    start = time.monotonic()
    try:
        return config, validate.data(config.to_json())[0]
    except ConfigError as error:
        assert "\n" not in str(error) and str(error).startswith("dataset"), str(error)
        return config, None
    finally:
        assert time.monotonic() - start < 10


def check(data, x, y):
    for name, rows in (("train", slice(TRAIN)), ("test", slice(TRAIN, None))):
        got_x, got_y = getattr(data, f"{name}_x"), getattr(data, f"{name}_y")
        assert got_x.dtype == np.float32 and got_y.dtype == np.int64 and np.isfinite(got_x).all()
        np.testing.assert_allclose(got_x, x[rows], atol=1e-4, rtol=1e-5)
        assert np.array_equal(got_y, y[rows]) and got_y.min() >= 0 and got_y.max() < data.num_classes


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(TABLES))
def test_tables(make_config, tmp_path, seed):
    draw = np.random.default_rng(seed)
    form = ("csv", "parquet", "jsonl")[seed % 3]
    columns = {f"c{k}": column(draw) for k in range(draw.integers(2, 5))}
    values = {name: list(each) for name, (each, _) in columns.items()}
    y, classes = labels(draw)
    bad = spoil(draw, values, y, form)
    (tmp_path / "set").mkdir()
    write_table(draw, tmp_path / "set", values, y, form)
    source = {"source": str(tmp_path / "set"), "input_column": [*values], "label_column": "y"}
    config, data = load(make_config, _target_="fedbatch.data.hugging_face", **source)
    assert (data is None) == bad
    if data is not None:
        check(data, np.concatenate([x for _, x in columns.values()], axis=1), classes)
        if seed % 6 < 3:
            summary = run(config)[1]
            assert np.isfinite(summary["test_loss"]) and 0 <= summary["test_accuracy"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(IMAGES))
def test_folders_of_images(make_config, tmp_path, seed):
    draw = np.random.default_rng(seed)
    forms = [str(form) for form in draw.choice(["L", "I;16", "RGB", "1"], draw.integers(1, 3), replace=False)]
    fault = str(draw.choice(["none", "none", "none", "size", "broken", "32 bits"]))
    pictures, order = [], sorted(range(ROWS), key=lambda i: (i >= TRAIN, i % 2, i))
    for i in range(ROWS):
        form = forms[i % len(forms)]
        raw = draw.integers(0, 256, (4, 5, 3) if form == "RGB" else (4, 5))
        pixels = {"I;16": (raw * 257 + 5).clip(0, 65535).astype(np.uint16), "1": raw > 99}.get(
            form, raw.astype(np.uint8)
        )
        grey = {"I;16": pixels / 65535, "1": pixels * 1.0}.get(form, pixels / 255)
        pictures.append(grey if grey.ndim == 3 or "RGB" not in forms else np.repeat(grey[..., None], 3, axis=2))
        path = tmp_path / "set" / ("train" if i < TRAIN else "test") / f"class{i % 2}" / f"{i:02d}.tiff"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels)
        if i == 7 and fault != "none":
            image = Image.fromarray(np.ones((4, 5 + (fault == "size")), np.float32 if fault == "32 bits" else np.uint8))
        image.save(path)
        if i == 7 and fault == "broken":
            path.write_bytes(path.read_bytes()[:40])
    source = {"source": str(tmp_path / "set"), "input_column": "image", "label_column": "label"}
    _, data = load(make_config, _target_="fedbatch.data.hugging_face", **source)
    assert (data is None) == (fault != "none")
    if data is not None:
        stack = np.stack(pictures)[order].astype(np.longdouble)
        stack = stack.transpose(0, 3, 1, 2) if stack.ndim == 4 else stack[:, None]
        mean, std = (f(stack[:TRAIN], axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.std))
        check(data, ((stack - mean) / std).astype(float), np.array(order) % 2)


def own_arrays(draw):
    """Fields of a Dataset, what they become, and whether they must be refused."""
    y = draw.integers(3, size=ROWS)
    y[:3] = range(3)
    x = draw.integers(0, 100, (ROWS, 3))
    kind = draw.choice(["f4", ">f4", "f8", "f2", "u1", "i2", "i4", "?"])
    values, given = (x % 2 if kind == "?" else x).astype(kind), y.astype(draw.choice(["i8", "i4", "u1", "f8", ">i2"]))
    fault = str(
        draw.choice(["none", "none", "nan", "inf", "from 1", "gaps", "fraction", "rank", "short", "times", "empty"])
    )
    if fault in ("nan", "inf"):
        values = values.astype("f8")
        values[draw.integers(ROWS), 1] = float(fault)
    elif fault == "times":
        values = 1.7e12 + values.astype("f8")
    change = {"from 1": lambda: given + 1, "gaps": lambda: given * 5, "fraction": lambda: given + 0.5}
    given = change.get(fault, lambda: given)()
    given = given[:, None, None] if fault == "rank" else given[:, None] if draw.integers(2) else given
    fields = [values[:TRAIN], given[: TRAIN - (fault == "short")], values[TRAIN:], given[TRAIN:]]
    if fault == "empty":
        fields[2:] = values[:0], given[:0]
    if draw.integers(3) == 0 and values.dtype.kind == "f":  # a list of whole numbers is int64, tokens
        fields[0] = fields[0].tolist()
    return fields, values.astype("f4"), y, fault != "none"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(OWN))
def test_own_functions(make_config, tmp_path, monkeypatch, seed):
    fields, x, y, bad = own_arrays(np.random.default_rng(seed))
    (tmp_path / "anybody.py").write_text(
        "import pathlib, pickle\ndef make(path):\n    return pickle.loads(pathlib.Path(path).read_bytes())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "set").write_bytes(pickle.dumps(Dataset("own", *fields, 3)))
    config, data = load(make_config, _target_="anybody.make", path=str(tmp_path / "set"))
    assert (data is None) == bad
    if data is not None:
        check(data, x, y)
        if seed % 5 == 0:
            assert np.isfinite(run(config)[1]["test_loss"])
