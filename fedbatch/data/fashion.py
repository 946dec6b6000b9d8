"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): the whole set from local files, or a bundled subset."""

import gzip
import hashlib
import math
import os
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedbatch.core import random as keys
from fedbatch.data import embedded
from fedbatch.data.dataset import Dataset

Bytes = npt.NDArray[np.uint8]

MEAN, STD = 0.2860, 0.3530  # of all training pixels, on a scale of 0 to 1
NUM_CLASSES = 10
NOISE_SEED = 2017

MINI = Path(__file__).with_name("fashion_mini.npz")
MINI_SHA256 = "84975e9c8d065e9a819e76f8c465f8f98a18e97074f0dfee1b912d15edf565c5"

# SHA-256 of each file once decompressed: distributors rewrite the gzip headers.
FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def fashion_mini(label_noise: float = 0.0) -> Dataset:
    """10,000 training and 2,000 test images of Fashion-MNIST, class-balanced, in the package; see `embedded`.

    Args:
        label_noise: share of the training labels, in [0, 1], that are drawn anew from all classes: a harder task.
    """
    if not 0 <= label_noise <= 1:
        raise ValueError(f"dataset.label_noise must be in [0, 1] (got {label_noise})")
    train_x, train_y, test_x, test_y = _mini()
    rng = keys.generator(NOISE_SEED, "label noise")
    labels = np.where(rng.random(len(train_y)) < label_noise, rng.integers(NUM_CLASSES, size=len(train_y)), train_y)
    return _dataset("fashion_mini", train_x, labels, test_x, test_y)


def fashion_pixels() -> Dataset:
    """The images of `fashion_mini` as their own targets, for an autoencoder: is a pixel brighter than half?

    Labels int64 ``(examples, 784)``, 0 or 1, a label a pixel, so that the loss of an example is its mean over pixels.
    """
    train, _, test, _ = _mini()
    bright = ((images > 127).reshape(len(images), -1).astype(np.int64) for images in (train, test))
    return Dataset("fashion_pixels", _standardise(train), next(bright), _standardise(test), next(bright), 2)


def _mini() -> list[Bytes]:
    """Training images, training labels, test images and test labels of the subset in the package."""
    with np.load(BytesIO(embedded.read(MINI, MINI_SHA256)), allow_pickle=False) as arrays:
        return [arrays[name] for name in ("train_x", "train_y", "test_x", "test_y")]


def fashion_mnist(folder: str | None = None) -> Dataset:
    """All 60,000 training and 10,000 test images of Fashion-MNIST, from local files.

    Args:
        folder: where the four IDX files are, plain or ``.gz``. None tries
            ``$FEDBATCH_DATA/fashion-mnist``, ``./data/fashion-mnist``, ``/usr/share/datasets/fashion-mnist``.

    Raises:
        FileNotFoundError: no such folder holds all four files.
        ValueError: a file is not the published one.
    """
    places = [Path(folder)] if folder is not None else _usual_places()
    for place in places:
        if all(_file(place, name) for name in FILES):
            return _dataset("fashion_mnist", *read_folder(place))
    raise FileNotFoundError(
        f"dataset.folder: no Fashion-MNIST in {', '.join(map(str, places))}; fetch it with `make data` or "
        "`apt-get install dataset-fashion-mnist`, or use the subset in the package, dataset=fashion_mini"
    )


def read_folder(folder: Path) -> list[Bytes]:
    """Training images, training labels, test images and test labels, as the files hold them.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not the published one.
    """
    arrays = []
    for name, sha256 in FILES.items():
        path = _file(folder, name)
        if path is None:
            raise FileNotFoundError(f"{folder} has neither {name} nor {name}.gz")
        try:
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        except (OSError, EOFError) as error:
            raise ValueError(f"{path} cannot be read ({error}); delete it and run `make data`") from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError(f"{path} is not the published file (wrong SHA-256); delete it and run `make data`")
        arrays.append(parse_idx(content))
    return arrays


def parse_idx(content: bytes) -> Bytes:
    """An array of unsigned bytes in the IDX format: 0, 0, type, number of axes, length of each axis, data.

    >>> parse_idx(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 1, 5, 6])).tolist()
    [[5], [6]]
    """
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise ValueError(f"not an IDX file of unsigned bytes: it starts with {content[:4].hex(' ')}")
    start = 4 + 4 * content[3]
    shape = np.frombuffer(content[4:start], ">u4").tolist()
    if len(content) - start != math.prod(shape):
        raise ValueError(f"IDX file of shape {shape} needs {math.prod(shape)} bytes, has {len(content) - start}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _usual_places() -> list[Path]:
    own = os.environ.get("FEDBATCH_DATA")
    places = [Path(own, "fashion-mnist")] if own else []
    return [*places, Path("data/fashion-mnist"), Path("/usr/share/datasets/fashion-mnist")]


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _dataset(name: str, train_x: Bytes, train_y: Bytes, test_x: Bytes, test_y: Bytes) -> Dataset:
    return Dataset(
        name,
        _standardise(train_x),
        train_y.astype(np.int64),
        _standardise(test_x),
        test_y.astype(np.int64),
        NUM_CLASSES,
    )


def _standardise(images: Bytes) -> npt.NDArray[np.float32]:
    # A pixel has only 256 values: looking each up is faster than arithmetic on 47 million floats.
    table = ((np.arange(256) / 255 - MEAN) / STD).astype(np.float32)
    return table[images][:, None]  # (N, 28, 28) -> (N, 1, 28, 28)
