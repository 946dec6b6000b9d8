"""One process a run folder: a file with its id and its machine, locked for as long as it lives."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedbatch.core.errors import ConfigError

FILE = "run.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other run out of ``folder``.

    The system lets go of the lock however the process ends, so that what a kill leaves behind is taken over. Machines
    that share a folder need not see each other's locks: a file that names another machine is believed.

    Raises:
        ConfigError: another run is in the folder; names its process and its machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    descriptor = _open_locked(path)
    try:
        pid, host = _owner(descriptor)
        if host not in ("", socket.gethostname()):
            raise ConfigError(
                f"run_dir: {folder} is in use by process {pid} on {host}; if that has ended, delete {path}"
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        try:
            yield
        finally:  # while it is locked: who opened the file meanwhile finds that it has gone
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _open_locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid, host = _owner(descriptor)
            os.close(descriptor)
            raise ConfigError(
                f"run_dir: {path.parent} is in use by process {pid or '(just started)'} on "
                f"{host or socket.gethostname()}; wait for its end, or take another folder"
            ) from None
        with suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)  # its owner has ended and taken the file away


def _owner(descriptor: int) -> tuple[int, str]:
    """Process and machine that the file names; 0 and "" where it names none."""
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
        return int(owner["pid"]), str(owner["host"])
    except (ValueError, KeyError, TypeError):
        return 0, ""
