"""Images of any mode as one array, at the depth that they were saved with."""

import re
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbatch.data.rows import listed

Pixels = npt.NDArray[Any]

AS_IS = ("L", "LA", "RGB", "RGBA", "I", "F")
OTHER = {"1": "L", "La": "LA", "RGBa": "RGBA", "PA": "RGBA"}  # what else Pillow has becomes RGB
SEVERAL_FRAMES = ("GIF", "TIFF", "WEBP", "PNG")  # a second frame of a photo (MPO) is a thumbnail


def decode(split: Any, name: str, column: str) -> list[Pixels]:
    """Each image of a column as ``(H, W, channels)``: 1 grey, 2 grey and alpha, 3 colour, 4 colour and alpha.

    Raises:
        ValueError: a row without an image, or one that cannot be read at its depth.
    """
    import datasets

    wanted_mode = split.features[column].mode
    values = split.cast_column(column, datasets.Image(decode=False))[column][:]
    missing = np.array([value is None for value in values])
    if missing.any():
        raise ValueError(f"dataset.input_column={column}: no image in {listed(missing)} of split {name}; drop them")
    images = []
    for row, value in enumerate(values):
        try:
            images.append(_pixels(value, wanted_mode))
        except Exception as error:  # readers of image formats raise what they like
            told = " ".join(str(error).split()) or type(error).__name__
            where = f"row {row} of split {name} ({value['path'] or 'embedded'})"
            raise ValueError(f"dataset.input_column={column}: {where} is no image that can be used: {told}") from error
    return images


def unify(parts: list[list[Pixels]], column: str) -> list[Pixels]:
    """The images of each split as ``(N, C, H, W)``, with one number of channels and one type for all.

    Grey images among colour ones become colour. Alpha is a channel where any pixel of any image is not opaque, and
    left out otherwise. Among images of 16 bits those of 8 bits are scaled to 16.

    Raises:
        ValueError: images of several sizes, of 32 bits among others, or not finite.
    """
    every = [image for part in parts for image in part]
    field = f"dataset.input_column={column}"
    sizes = sorted({image.shape[:2] for image in every})
    if len(sizes) > 1:
        told = ", ".join(f"{h} x {w}" for h, w in sizes[:3]) + (", ..." if len(sizes) > 3 else "")
        raise ValueError(f"{field}: images of {len(sizes)} sizes ({told}); resize them to one")
    types = sorted({image.dtype for image in every}, key=str)
    depth = max(types, key=lambda each: each.itemsize)
    if len(types) > 1 and depth.itemsize > 2:
        told = ", ".join(map(str, types))
        raise ValueError(f"{field}: images of 32 bits among others ({told}) have no common scale; save all as one type")
    colour = any(image.shape[2] > 2 for image in every)
    alpha = any(image.shape[2] in (2, 4) and (image[..., -1] < np.iinfo(image.dtype).max).any() for image in every)
    stacked = []
    for part in parts:
        out = np.empty((len(part), (3 if colour else 1) + alpha, *sizes[0]), depth)
        for row, image in enumerate(part):
            scale = 257 if image.dtype.itemsize < depth.itemsize else 1  # 255 * 257 = 65,535
            channels = image.transpose(2, 0, 1).astype(depth) * depth.type(scale)
            transparent = len(channels) in (2, 4)
            out[row, : out.shape[1] - alpha] = channels[:-1] if transparent else channels
            if alpha:
                out[row, -1] = channels[-1] if transparent else np.iinfo(depth).max
        stacked.append(out)
        bad = np.asarray(~np.isfinite(out).all(axis=(1, 2, 3)))
        if bad.any():
            raise ValueError(f"{field}: pixels that are not a finite number in {listed(bad)}; fill or drop them")
    return stacked


def _pixels(value: dict[str, Any], mode: str | None) -> Pixels:
    from PIL import Image, ImageOps

    with Image.open(value["path"] if value["bytes"] is None else BytesIO(value["bytes"])) as image:
        frames = getattr(image, "n_frames", 1)
        if image.format in SEVERAL_FRAMES and frames > 1:
            raise ValueError(f"it has {frames} frames; save each as an image")
        raw = [tile.args[0] if isinstance(tile.args, tuple) else tile.args for tile in image.tile]
        deep = any(re.search(r";16[BLN]?$", str(mode_in_file)) for mode_in_file in raw)
        if deep and image.mode in ("LA", "RGB", "RGBA", "RGBX", "CMYK"):
            raise ValueError(f"its 16 bits in {image.mode} would be cut to 8; save it with 8, or as grey of 16")
        upright = ImageOps.exif_transpose(image)
        if mode and mode != upright.mode:
            upright = upright.convert(mode)
        if upright.mode == "P" and "transparency" in upright.info:
            upright = upright.convert("RGBA")
        elif upright.mode not in AS_IS and not upright.mode.startswith("I;16"):
            upright = upright.convert(OTHER.get(upright.mode, "RGB"))
        array = np.asarray(upright)
    array = array.astype(array.dtype.newbyteorder("="))
    return array[..., None] if array.ndim == 2 else array
