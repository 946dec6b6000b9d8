import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from fedbatch.data import fashion
from fedbatch.data.prepare.build_fashion_mini import choose


def idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def four_files(tmp_path, monkeypatch):
    """A tiny stand-in for the published files; the images of one split are plain, all else is gzipped."""
    folder = tmp_path / "somewhere"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
    arrays = dict(
        zip(
            fashion.FILES,
            [pixels, np.arange(6, dtype=np.uint8), pixels[:2], np.array([3, 1], np.uint8)],
            strict=True,
        )
    )
    for name, array in arrays.items():
        if name.startswith("t10k-images"):
            (folder / name).write_bytes(idx(array))
        else:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    hashes = {name: hashlib.sha256(idx(array)).hexdigest() for name, array in arrays.items()}
    monkeypatch.setattr(fashion, "FILES", hashes)
    monkeypatch.chdir(tmp_path)
    return folder, pixels


def test_mini_has_the_promised_shapes_and_balance():
    data = fashion.fashion_mini()
    assert data.train_x.shape == (10_000, 1, 28, 28) and data.train_x.dtype == np.float32
    assert data.test_x.shape == (2_000, 1, 28, 28) and data.test_x.dtype == np.float32
    assert data.train_y.dtype == data.test_y.dtype == np.int64
    assert np.bincount(data.train_y).tolist() == [1000] * 10
    assert np.bincount(data.test_y).tolist() == [200] * 10
    assert data.num_classes == 10 and data.owner is None


def test_mini_is_standardised_and_not_sorted_by_label():
    data = fashion.fashion_mini()
    assert abs(data.train_x.mean()) < 0.01 and abs(data.train_x.std() - 1) < 0.01
    assert data.train_x.min() == np.float32(-0.2860 / 0.3530)  # a black pixel
    assert len(np.unique(data.train_y[:100])) == 10


def test_mini_has_no_test_image_in_training():
    data = fashion.fashion_mini()
    train = {image.tobytes() for image in data.train_x}
    assert sum(image.tobytes() in train for image in data.test_x) == 0


def test_damaged_mini_is_refused(tmp_path, monkeypatch):
    damaged = tmp_path / "fashion_mini.npz"
    damaged.write_bytes(fashion.MINI.read_bytes()[:-1])
    monkeypatch.setattr(fashion, "MINI", damaged)
    with pytest.raises(ValueError, match=r"fashion_mini.*damaged.*reinstall"):
        fashion.fashion_mini()


def test_choice_is_balanced_and_repeatable():
    labels = np.random.default_rng(0).integers(0, 10, 500).astype(np.uint8)
    chosen = choose(labels, 20, "train")
    assert np.bincount(labels[chosen]).tolist() == [20] * 10 and len(np.unique(chosen)) == 200
    assert np.array_equal(chosen, choose(labels, 20, "train"))
    assert not np.array_equal(chosen, choose(labels, 20, "test"))


def test_whole_set_from_plain_and_gzipped_files(four_files):
    folder, pixels = four_files
    data = fashion.fashion_mnist(str(folder))
    np.testing.assert_allclose(data.train_x[:, 0], (pixels / 255 - 0.2860) / 0.3530, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(data.test_x, data.train_x[:2])
    assert data.train_y.tolist() == [0, 1, 2, 3, 4, 5] and data.test_y.tolist() == [3, 1]


@pytest.mark.parametrize("place", ["mine/fashion-mnist", "data/fashion-mnist"])
def test_whole_set_is_found_in_the_usual_places(four_files, tmp_path, monkeypatch, place):
    folder, _ = four_files
    monkeypatch.setenv("FEDBATCH_DATA", str(tmp_path / "mine"))
    (tmp_path / place).parent.mkdir()
    folder.rename(tmp_path / place)
    assert len(fashion.fashion_mnist().train_y) == 6


def test_missing_set_names_the_places_and_the_remedies(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError) as error:
        fashion.fashion_mnist(str(tmp_path / "nowhere"))
    message = str(error.value)
    for part in (
        "dataset.folder",
        "nowhere",
        "make data",
        "apt-get install dataset-fashion-mnist",
        "fashion_mini",
    ):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize("change", [lambda content: content[:-9], lambda content: gzip.compress(b"other")])
def test_altered_file_is_refused(four_files, change):
    folder, _ = four_files
    path = folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=r"train-labels.*delete it and run `make data`"):
        fashion.fashion_mnist(str(folder))


@pytest.mark.parametrize("content", [b"", b"\0\0\x0d\x01\0\0\0\x01abcd", b"\0\0\x08\x01\0\0\0\x05abcd"])
def test_what_is_no_idx_file_is_refused(content):
    with pytest.raises(ValueError, match="IDX file"):
        fashion.parse_idx(content)


def test_a_bundle_without_the_data_takes_the_installed_packages(monkeypatch):
    here = fashion.MINI
    monkeypatch.setattr(fashion, "MINI", Path("/nowhere", here.name))
    monkeypatch.setattr("sys.path", [str(here.parents[2])])
    assert fashion.fashion_mini().name == "fashion_mini"
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(FileNotFoundError, match="pip install fedbatch"):
        fashion.fashion_mini()


def test_label_noise_changes_its_share_of_training_labels_only():
    clean, noisy = fashion.fashion_mini(), fashion.fashion_mini(label_noise=0.2)
    assert np.mean(clean.train_y != noisy.train_y) == pytest.approx(0.2 * 0.9, abs=0.012)  # one in ten stays by chance
    assert (clean.test_y == noisy.test_y).all()
    with pytest.raises(ValueError, match="label_noise must be in"):
        fashion.fashion_mini(label_noise=1.5)


def test_pixels_are_their_own_targets():
    data, images = fashion.fashion_pixels(), fashion.fashion_mini()
    bright = (images.test_x * fashion.STD + fashion.MEAN) > 0.5
    assert (data.test_y == bright.reshape(2000, -1)).all() and data.num_classes == 2
