import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fedbatch.data.hub import hugging_face

N = 20


def pixels(i, *shape):
    return np.random.default_rng(i).integers(0, 256, shape or (4, 5), np.uint8)


@pytest.fixture
def from_images(tmp_path):
    """Images ``make(0), make(1), ...`` in one folder of two classes a split: 14 to train on, 6 to test on."""

    def load(make, suffix="png"):
        for i in range(N):
            folder = tmp_path / "pictures" / ("train" if i < 14 else "test") / f"c{i % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            image = make(i)
            path = folder / f"{i:02d}.{suffix}"
            path.write_bytes(image) if isinstance(image, bytes) else image.save(path)
        return hugging_face(str(tmp_path / "pictures"), input_column="image", label_column="label")

    return load


def expected(arrays):
    """Standardised per channel by the first 14; images of class 0 come before those of class 1."""
    stack = np.stack(arrays).astype(np.longdouble)
    stack = stack[:, None] if stack.ndim == 3 else stack.transpose(0, 3, 1, 2)
    train = stack[:14]
    mean, std = train.mean((0, 2, 3), keepdims=True), train.std((0, 2, 3), keepdims=True)
    stack = (stack - mean) / std
    return [np.concatenate([part[::2], part[1::2]]) for part in (stack[:14], stack[14:])]


def wide(i):
    return pixels(i).astype(np.uint16) * 200 + 3


FORMS = {
    "L": (lambda i: Image.fromarray(pixels(i)), pixels, "png"),
    "1": (lambda i: Image.fromarray(pixels(i) > 99), lambda i: pixels(i) > 99, "png"),
    "16 bits": (lambda i: Image.fromarray(wide(i)), wide, "png"),
    "16 bits tiff": (lambda i: Image.fromarray(wide(i)), wide, "tiff"),
    "big-endian": (lambda i: Image.frombytes("I;16B", (5, 4), wide(i).astype(">u2").tobytes()), wide, "tiff"),
    "32 bits": (lambda i: Image.fromarray(wide(i) * np.int32(9999)), wide, "tiff"),
    "float": (lambda i: Image.fromarray(1e6 + pixels(i).astype(np.float32)), pixels, "tiff"),
    "RGBA": (lambda i: Image.fromarray(pixels(i, 4, 5, 4)), lambda i: pixels(i, 4, 5, 4), "png"),
    "LA": (lambda i: Image.fromarray(pixels(i, 4, 5, 2)), lambda i: pixels(i, 4, 5, 2), "png"),
    "opaque": (
        lambda i: Image.fromarray(np.concatenate([pixels(i, 4, 5, 3), np.full((4, 5, 1), 255, np.uint8)], 2)),
        lambda i: pixels(i, 4, 5, 3),
        "png",
    ),
    "palette": (
        lambda i: Image.fromarray(pixels(i, 4, 5, 3)).quantize(256),
        lambda i: np.asarray(Image.fromarray(pixels(i, 4, 5, 3)).quantize(256).convert("RGB")),
        "png",
    ),
    "CMYK": (
        lambda i: Image.fromarray(pixels(i, 4, 5, 3)).convert("CMYK"),
        lambda i: np.asarray(Image.fromarray(pixels(i, 4, 5, 3)).convert("CMYK").convert("RGB")),
        "tiff",
    ),
    "grey among colour": (
        lambda i: Image.fromarray(pixels(i, 4, 5, 3) if i % 3 else pixels(i)),
        lambda i: pixels(i, 4, 5, 3) if i % 3 else np.repeat(pixels(i)[..., None], 3, axis=2),
        "png",
    ),
    "8 bits among 16": (
        lambda i: Image.fromarray(pixels(i) if i % 3 else wide(i)),
        lambda i: pixels(i) / 255 if i % 3 else wide(i) / 65535,
        "png",
    ),
    "grey among alpha": (
        lambda i: Image.fromarray(pixels(i, 4, 5, 4) if i % 3 else pixels(i)),
        lambda i: pixels(i, 4, 5, 4) if i % 3 else np.stack([*[pixels(i)] * 3, np.full((4, 5), 255)], axis=2),
        "png",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_keep_depth_and_channels(from_images, form):
    make, values, suffix = FORMS[form]
    data = from_images(make, suffix)
    train, test = expected([values(i) for i in range(N)])
    assert data.train_x.dtype == np.float32 and data.train_x.shape == train.shape
    np.testing.assert_allclose(data.train_x, train.astype(float), atol=2e-6)
    np.testing.assert_allclose(data.test_x, test.astype(float), atol=2e-6)


def colour_of_16_bits(i):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = b"".join(b"\0" + np.random.default_rng(i).integers(0, 99, 15, np.uint16).tobytes() for _ in range(4))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def animation(i):
    file = io.BytesIO()
    frames = [Image.fromarray(pixels(i + k)) for k in range(2)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


@pytest.mark.parametrize(
    ("make", "suffix", "words"),
    [
        (lambda i: Image.fromarray(pixels(i, 4, 4 + i % 2)), "png", ["2 sizes (4 x 4, 4 x 5)", "resize"]),
        (lambda i: Image.fromarray(pixels(i)) if i else b"no image", "png", ["row 0 of split train", "00.png"]),
        (lambda i: Image.fromarray(pixels(i).astype(np.float32) if i else pixels(i)), "tiff", ["32 bits among others"]),
        (lambda i: Image.fromarray(np.full((4, 5), np.nan if i == 2 else 1, np.float32)), "tiff", ["1 of 14 rows (1,"]),
        (colour_of_16_bits, "png", ["its 16 bits in RGB would be cut to 8"]),
        (animation, "gif", ["2 frames"]),
    ],
)
def test_images_that_would_be_changed_are_refused_in_one_line(from_images, make, suffix, words):
    with pytest.raises(ValueError) as error:
        from_images(make, suffix)
    assert "\n" not in str(error.value) and "dataset.input_column=image" in str(error.value)
    for word in words:
        assert word in str(error.value)
