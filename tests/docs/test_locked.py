"""The packages that are installed by hash are those that the tests run with."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.M)
OF_A_GPU = re.compile(r"nvidia|cuda|triton")
"""What torch brings where it is not built for a CPU; the constraints leave it to torch."""


def pins(name):
    found = PIN.findall((ROOT / name).read_text())
    return {re.sub(r"[-_.]+", "-", package.lower()): version for package, version in found}


def test_locked_versions_are_those_of_the_constraints():
    locked, pinned = pins(".ci/locked.txt"), pins("constraints.txt")
    ours = {package: version for package, version in locked.items() if not OF_A_GPU.match(package)}
    assert len(ours) > 80
    others = {package: version for package, version in ours.items() if pinned.get(package, version) != version}
    assert not others
    assert len(ours.keys() - pinned.keys()) <= 6  # what only some platforms and Python versions need


def test_every_locked_package_has_hashes():
    blocks = re.split(r"\n(?=\S)", (ROOT / ".ci/locked.txt").read_text().strip())
    assert all("--hash=sha256:" in block for block in blocks)


def test_what_fedbatch_asks_for_is_locked():
    declared = re.search(r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    asked = {re.sub(r"[-_.]+", "-", name.lower()) for name in re.findall(r'"([A-Za-z0-9._-]+)', declared[1])}
    assert asked <= pins(".ci/locked.txt").keys()
