"""What this machine has for runs, and what a run of a config needs of it: for ``fedbatch doctor``."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedbatch.core import cache
from fedbatch.core.visible import visible

GIB = 2**30
Row = tuple[str, str]
COPIES = 6
"""Of the parameters, in a process with server and node: both models, gradient, sum, update, one of the optimizer."""
STATES = 4
"""Of the parameters in a checkpoint: themselves, an average, and two of an optimizer such as Adam."""
KEPT = 3
"""Checkpoints in a folder at a time: two, and the next while it is written."""


def machine() -> Iterator[Row]:
    """Compiler, memory, disk and GPU, and what each is for."""
    import torch

    from fedbatch.executors.compiled import NotCompiledError, library

    try:
        library("chain.c", torch.float32)
        yield "compiler", "there: executor=chain can be used"
    except NotCompiledError as error:
        yield "compiler", f"{error}; without it executor=chain is left out, as slower ones do the same: install gcc"
    yield "memory", f"{free_memory() / GIB:.1f} GiB free"
    for name, folder in (("run folders", Path("runs")), ("cache", cache.folder())):
        yield name, f"{free_disk(folder) / GIB:.1f} GiB free at {visible(folder.absolute())}"
    if torch.cuda.is_available():
        yield "gpu", "there; runs take it with device=auto or device=cuda"


def config(overrides: Sequence[str]) -> Iterator[Row]:
    """What a run of this config would hold in memory and write to disk, against what there is.

    Args:
        overrides: as on the command line of a run.

    Raises:
        ConfigError: the config cannot be run.
    """
    import torch

    from fedbatch.api import configured
    from fedbatch.setup import task
    from fedbatch.setup.validate import validate

    asked = configured(tuple(overrides), {})
    validate(asked)
    run = task.load(asked.to_json())
    params = run.node_model.params
    data = sum(each.numel() * each.element_size() for each in (run.train_y, run.test_y))
    data += sum(each.nbytes for each in (run.train_x, run.test_x) if hasattr(each, "nbytes"))
    size = params.numel() * params.element_size()
    least = data + COPIES * size
    yield "model", f"{params.numel():,} parameters, {size / 1e6:.1f} MB"
    yield "data", f"{data / 1e6:.1f} MB in memory, {len(run.train_y):,} training and {len(run.test_y):,} test examples"
    there = free_memory()
    yield "memory", f"{least / GIB:.2f} GiB at least, of {there / GIB:.1f} GiB free{_short(least, there)}"
    written = KEPT * STATES * size
    free = free_disk(Path(run.config.run_dir))
    yield "disk", f"{written / 1e6:.1f} MB of checkpoints at most, of {free / GIB:.1f} GiB free{_short(written, free)}"
    used = "used" if run.train_y.device.type == "cuda" else "there and not used: set device=cuda"
    yield "gpu", used if torch.cuda.is_available() else "none"


def _short(needed: float, free: float) -> str:
    return ": too little" if needed > free else ""


def free_memory() -> int:
    """Bytes that processes may still take; all there are, where the system does not say more."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_disk(folder: Path) -> int:
    """Bytes that are free where a folder lies or would lie."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(there).free
