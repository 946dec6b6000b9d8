"""The folder for what can always be computed again, and writing to it without ever failing a run."""

import os
from contextlib import suppress
from pathlib import Path


def folder() -> Path:
    """``$FEDBATCH_CACHE``, or fedbatch's folder where the system keeps caches."""
    if own := os.environ.get("FEDBATCH_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "fedbatch")


def write(path: Path, content: bytes) -> None:
    """Keep ``content``; a cache that cannot be written (read-only home, full disk) costs only time."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(path)  # in one step: no reader sees half a file
        finally:
            temporary.unlink(missing_ok=True)
