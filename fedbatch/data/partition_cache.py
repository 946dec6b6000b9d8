"""Partitions kept on disk, each named by a hash of all it was computed from, so that none is ever stale."""

import hashlib
import io
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbatch.core import cache
from fedbatch.data.dataset import Dataset

Ints = npt.NDArray[np.int64]


def path_of(dataset: Dataset, kind: str, seed: int, arguments: dict[str, Any]) -> Path:
    """Where the partition of these labels and owners with these arguments is kept."""
    request = [kind, seed, arguments, version("flwr-datasets"), version("numpy")]
    digest = hashlib.blake2b(json.dumps(request, sort_keys=True, default=list).encode(), digest_size=16)
    digest.update(dataset.train_y.tobytes())
    if dataset.owner is not None:
        digest.update(dataset.owner.tobytes())
    return cache.folder() / f"partition-{digest.hexdigest()}.npz"


def read(path: Path, num_examples: int) -> Ints | None:
    """The cached client of each example, int64 ``(examples,)``, or None where there is no sound file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            client_of = arrays["client_of"]
    except Exception:  # whatever is wrong with a cached file, the answer is to compute it again
        return None
    sound = client_of.shape == (num_examples,) and client_of.dtype == np.int64
    return client_of if sound else None


def write(path: Path, client_of: Ints) -> None:
    """Keep a partition."""
    buffer = io.BytesIO()
    np.savez(buffer, client_of=client_of)
    cache.write(path, buffer.getvalue())
