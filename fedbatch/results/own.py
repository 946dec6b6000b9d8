"""Which configs were written by runs on this machine: the code that they name was run here before.

Kept in the cache folder, by a digest of the whole file: a config of which anything has changed is a stranger's again.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from fedbatch.config.trust import EVERYTHING
from fedbatch.core import cache

FILE = "config.yaml"


def remember(content: bytes) -> None:
    """Note that a run on this machine wrote its config so."""
    cache.write(_note(content), b"")


def is_own(folder: Path) -> bool:
    """Whether the config in a run folder is as a run on this machine wrote it."""
    try:
        return _note((folder / FILE).read_bytes()).is_file()
    except OSError:
        return False


def trusted_in(folder: Path, trust: Iterable[str]) -> list[str]:
    """What is trusted in a run folder: what its reader names, and everything where a run on this machine wrote it."""
    return [*trust, EVERYTHING] if is_own(folder) else [*trust]


def _note(content: bytes) -> Path:
    return cache.folder() / f"own-config-{hashlib.blake2b(content, digest_size=16).hexdigest()}"
