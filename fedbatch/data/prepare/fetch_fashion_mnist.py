"""Fetches all of Fashion-MNIST to ``./data/fashion-mnist`` from the Debian package; needs apt but not root.

Run as ``python -m fedbatch.data.prepare.fetch_fashion_mnist``.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from fedbatch.data.fashion import read_folder

PACKAGE = "dataset-fashion-mnist"
BY_HAND = (
    "try again after `apt-get update`; or by hand put the four *-ubyte.gz files of "
    "https://github.com/zalandoresearch/fashion-mnist in {folder}; "
    "or train on dataset=fashion_mini, which needs no download"
)


def fetch(folder: Path) -> None:
    """Download, verify and put the four files in ``folder``.

    Raises:
        OSError: apt-get or dpkg-deb is missing, or the disk is full.
        RuntimeError: one of them failed; the message is its last line.
        ValueError: the files are not the published ones.
    """
    with tempfile.TemporaryDirectory() as work:
        _run("apt-get", "download", PACKAGE, cwd=work)
        archive = next(Path(work).glob("*.deb"))
        _run("dpkg-deb", "-x", archive.name, "unpacked", cwd=work)
        unpacked = Path(work, "unpacked/usr/share/datasets/fashion-mnist")
        read_folder(unpacked)
        shutil.copytree(unpacked, folder, dirs_exist_ok=True)


def _run(*command: str, cwd: str) -> None:
    done = subprocess.run(command, cwd=cwd, text=True, capture_output=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(f"{command[0]}: {lines[-1]}")


def main() -> None:
    """Fetch to ``./data/fashion-mnist``, or exit with one line that says what to do by hand."""
    folder = Path("data/fashion-mnist")
    try:
        fetch(folder)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"could not fetch Fashion-MNIST ({error}); {BY_HAND.format(folder=folder)}")
    print(f"Fashion-MNIST is in {folder}: fedbatch dataset=fashion_mnist")


if __name__ == "__main__":
    main()
