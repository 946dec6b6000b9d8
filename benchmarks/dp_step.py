"""``python -m benchmarks.dp_step``: clipping every example's gradient against the plain gradient of the same batch.

The benchmark CNN (1.2M parameters), one thread, every way once in each repeat. "fedbatch" rows are executors on one job
of single examples, noise included; "Opacus" rows are its own gradient samplers, followed by clip, sum and noise. Then
the peak memory of the fastest way at growing batches, each in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.measure import Row, interleaved, machine, prepare
from fedbatch.clients.clip import Clip
from fedbatch.clients.job import Job
from fedbatch.clients.per_example import as_examples
from fedbatch.executors.choose import EXECUTORS
from fedbatch.losses import CrossEntropy
from fedbatch.models.convolutional import cnn
from fedbatch.models.flat import FlatModel

SHAPE, CLASSES, CLIP = (1, 28, 28), 10, Clip(1.0)


def main() -> None:
    """Time all ways, measure memory, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    prepare(1)
    warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)  # of Opacus, on a first layer
    if given.memory_of:
        print(json.dumps(peak_mb(given.memory_of)))
        return
    rows = interleaved(ways(given.batch), given.repeats)
    memory = {batch: _peak_of(batch) for batch in (256, 1024, 4096)}
    console = Console(width=120)
    console.print(timing_table(rows, given.batch), f"peak memory of fused by batch, MiB: {memory}", machine(), sep="\n")
    if given.json:
        content = {"machine": machine(), "batch": given.batch, "rows": [vars(row) for row in rows], "peak_mb": memory}
        given.json.write_text(json.dumps(content, indent=1) + "\n")


def ways(batch: int) -> dict[str, Callable[[], None]]:
    """Every way, on random images."""
    x, y = images(batch)
    plain = model(channels_last=True)
    found: dict[str, Callable[[], None]] = {"plain": lambda: _discard(plain.loss_and_gradient(CrossEntropy(), x, y))}
    for name in ("fused", "ghost", "vmap", "loop"):
        job = clipping_job(model(channels_last=name != "ghost"), x, y)
        found[f"fedbatch {name}"] = partial(_release, name, job)
    for mode in ("hooks", "functorch"):
        found[f"Opacus {mode}"] = opacus_step(mode, x, y)
    return found


def model(channels_last: bool) -> FlatModel:
    """The benchmark CNN."""
    torch.manual_seed(0)
    return FlatModel(cnn(SHAPE, CLASSES, channels=32, hidden=128, norm="none", groups=1), channels_last=channels_last)


def images(batch: int) -> tuple[Tensor, Tensor]:
    """Random images and labels."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, *SHAPE, generator=generator), torch.randint(CLASSES, (batch,), generator=generator)


def clipping_job(flat: FlatModel, x: Tensor, y: Tensor) -> Job:
    """Clip and add the gradients of all examples."""
    work, ids, draw, weights = as_examples(np.arange(len(y)), CLIP)
    state = {"params": flat.params.clone(), "buffers": flat.buffers.clone()}
    job = Job(flat, CrossEntropy(), x, y, work, ids, draw, weights, **state)
    return replace(job, clip=CLIP)


def opacus_step(mode: str, x: Tensor, y: Tensor) -> Callable[[], None]:
    """Opacus' per-example gradients by its hooks, or by functorch; clipped, added and noised."""
    from opacus.grad_sample import GradSampleModule

    flat = model(channels_last=False)
    sampled = GradSampleModule(flat.module, loss_reduction="sum", force_functorch=mode == "functorch")

    def step() -> None:
        CrossEntropy()(sampled(x), y, reduction="none").sum().backward()
        samples = [p.grad_sample for p in flat.trainable]
        norms = torch.stack([s.flatten(1).norm(dim=1) for s in samples]).norm(dim=0)
        factors = (CLIP.norm / norms).clamp(max=1.0)
        for p, s in zip(flat.trainable, samples, strict=True):
            _discard(torch.tensordot(factors, s, dims=1) + torch.randn_like(p))
            p.grad_sample = None

    return step


def _release(name: str, job: Job) -> None:
    _discard(EXECUTORS[name](job).update_sum + torch.randn_like(job.params))


def _discard(_: Tensor) -> None:
    pass


def timing_table(rows: list[Row], batch: int) -> Table:
    """Seconds and the ratio to the plain gradient."""
    table = Table(title=f"CNN, batch {batch}, one thread")
    for name in ("", "ms median", "min", "max", "x plain"):
        table.add_column(name, justify="right" if name else "left")
    plain = rows[0].seconds_median
    for row in rows:
        times = [f"{1e3 * s:.0f}" for s in (row.seconds_median, row.seconds_min, row.seconds_max)]
        table.add_row(row.system, *times, f"{row.seconds_median / plain:.2f}")
    return table


def peak_mb(batch: int) -> float:
    """Peak memory of this process after two steps of the fused executor, less the images themselves."""
    from benchmarks import peak

    x, y = images(batch)
    job = clipping_job(model(channels_last=True), x, y)
    for _ in range(2):
        _release("fused", job)
    return round(peak.peak_mb() - x.numel() * x.element_size() / 2**20)


def _peak_of(batch: int) -> float:
    command = [sys.executable, "-m", "benchmarks.dp_step", "--memory-of", str(batch)]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


if __name__ == "__main__":
    main()
