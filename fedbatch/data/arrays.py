"""A folder of NumPy files, of which the training inputs may be larger than memory."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbatch.data.dataset import Dataset, scaled

NAMES = ("train_x", "train_y", "test_x", "test_y")
OWNER = "owner"


def arrays(source: str, num_classes: int | None = None, scale: float | None = None) -> Dataset:
    """The data set in a folder with ``train_x.npy``, ``train_y.npy``, ``test_x.npy``, ``test_y.npy``.

    An example is a row. ``train_x.npy`` is mapped into memory and read row by row; all else is read at once.
    ``owner.npy``, if it is there, says whose each training example is.

    Args:
        source: the folder.
        num_classes: of labels that are classes; None for labels that are numbers.
        scale: what inputs of uint8 are multiplied by.

    Raises:
        ValueError: a file that is missing or is no NumPy array.
    """
    folder = Path(source).expanduser()
    missing = [f"{name}.npy" for name in NAMES if not (folder / f"{name}.npy").is_file()]
    if missing:
        wanted = f"it must be a folder with {', '.join(f'{name}.npy' for name in NAMES)}"
        raise ValueError(f"dataset.source: {folder} has no {' and no '.join(missing)}; {wanted}")
    train_x, test_x = _opened(folder, "train_x", mode="r"), _opened(folder, "test_x")
    if scale is not None:
        for name, x in (("train_x", train_x), ("test_x", test_x)):
            if x.dtype != np.uint8:
                raise ValueError(f"dataset.scale is for inputs of uint8, and {name} is {x.dtype}; set it to null")
        test_x = scaled(test_x, scale)
    return Dataset(
        name=folder.name,
        train_x=train_x,
        train_y=_opened(folder, "train_y"),
        test_x=test_x,
        test_y=_opened(folder, "test_y"),
        num_classes=num_classes,
        owner=_opened(folder, OWNER) if (folder / f"{OWNER}.npy").is_file() else None,
        scale=scale,
        mapped=True,
    )


def _opened(folder: Path, name: str, mode: Any = None) -> npt.NDArray[Any]:
    try:
        return np.asarray(np.load(folder / f"{name}.npy", mmap_mode=mode, allow_pickle=False))
    except (ValueError, OSError, EOFError) as error:
        told = " ".join(str(error).split())
        raise ValueError(f"dataset.source: {folder / f'{name}.npy'} cannot be read as a NumPy array: {told}") from error
