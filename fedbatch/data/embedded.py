"""Data files that the package carries."""

import hashlib
import sys
from pathlib import Path


def read(path: Path, sha256: str) -> bytes:
    """The content of ``fedbatch/data/NAME.*``, the data set ``NAME``.

    Raises:
        FileNotFoundError: no copy of the package on the path has the file.
        ValueError: the package's file is not the published one.
    """
    name = path.name.split(".")[0]
    # Flower's app bundle carries only text files, so inside it the data is that of the installed package.
    for place in (path, *(Path(entry, "fedbatch", "data", path.name) for entry in sys.path)):
        if place.is_file():
            content = place.read_bytes()
            if hashlib.sha256(content).hexdigest() != sha256:
                raise ValueError(f"dataset={name}: {place} is damaged (wrong SHA-256); reinstall fedbatch")
            return content
    raise FileNotFoundError(f"dataset={name}: no {path.name} on the path; pip install fedbatch on this machine")
