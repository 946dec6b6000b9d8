"""Files that are for their owner alone, such as a secret, a key and the account of a node."""

import os
import shlex
import stat
from pathlib import Path


def make(path: Path, content: bytes = b"") -> None:
    """Make a file that nobody but its owner can read or write, with its folders; one that is there stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return
    with open(descriptor, "wb") as new:
        new.write(content)


def exposed(path: Path) -> str:
    """What is wrong with the permissions of a file that is there, and the remedy, as one line; empty if nothing is."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name != "posix" or not mode & 0o066:
        return ""
    what = "read" if mode & 0o044 else "change"
    return (
        f"{path} has mode {mode:04o}, so that others on this machine can {what} it; chmod 600 {shlex.quote(str(path))}"
    )
