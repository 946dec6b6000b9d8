"""``python -m benchmarks.optimizer_step``: seconds of an optimizer's step on a transformer's 15 million parameters."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Row, interleaved, machine, prepare
from benchmarks.ratios import Ratio
from fedbatch.optim import LAMB, LARS, MERIT

BASE = "AdamW(foreach)"
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    BASE: lambda params: torch.optim.AdamW(params, lr=1e-4, foreach=True),
    "LARS": lambda params: LARS(params, lr=1e-1),
    "LAMB": lambda params: LAMB(params, lr=1e-4),
    "MERIT": lambda params: MERIT(params, lr=1e-4),
}
TARGETS = {"LARS": 1.3, "LAMB": 1.3, "MERIT": 2.0}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optimizer_step", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="file to write")
    arguments = parser.parse_args()
    prepare(arguments.threads)
    shapes = transformer_shapes()
    rows = measure(shapes, arguments.repeats, arguments.device)
    count = sum(torch.Size(shape).numel() for shape in shapes)
    console = Console()
    console.print(table(rows, count), machine(), sep="\n")
    if arguments.json:
        content: dict[str, Any] = {"machine": machine(), "parameters": count, "device": arguments.device}
        content |= {"rows": [asdict(row) for row in rows], "ratios": [ratio.record() for ratio in ratios(rows)]}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


def transformer_shapes(layers: int = 8, width: int = 392, tokens: int = 256) -> list[tuple[int, ...]]:
    """Shapes of a GPT's parameters, 15 million in all: embeddings, then matrices and vectors of each block.

    >>> round(sum(torch.Size(shape).numel() for shape in transformer_shapes()) / 1e6, 1)
    15.0
    """
    norm = [(width,), (width,)]
    maps = [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)]
    affine = [shape for out, into in maps for shape in ((out, into), (out,))]
    return [(tokens, width), (tokens, width), *layers * (norm + affine[:4] + norm + affine[4:]), *norm]


def measure(shapes: list[tuple[int, ...]], repeats: int, device: str = "cpu") -> list[Row]:
    """Each optimizer steps its own copy of the parameters, in turn with the others."""
    steps = {}
    for name, make in OPTIMIZERS.items():
        generator = torch.Generator().manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(s, generator=generator).mul(0.02).to(device)) for s in shapes]
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator).mul(1e-3).to(device)
        steps[name] = make(params).step
    return interleaved(steps, repeats, warmup=5)


def ratios(rows: list[Row]) -> list[Ratio]:
    """Step times over AdamW's, with their targets."""
    by_name = {row.system: row for row in rows}
    found = []
    for name, target in TARGETS.items():
        wall, cpu = (
            getattr(by_name[name], key) / getattr(by_name[BASE], key) for key in ("seconds_median", "cpu_seconds")
        )
        found.append(Ratio(f"step of {name} / {BASE}", wall, cpu, target, "at most"))
    return found


def table(rows: list[Row], count: int) -> Table:
    """Median, least and most of each, and the ratios."""
    grid = Table(title=f"one step on {count / 1e6:.1f} million parameters")
    for heading in ("optimizer", "median ms", "least", "most", "of AdamW", "target"):
        grid.add_column(heading, justify="left" if heading == "optimizer" else "right")
    verdict = {ratio.name.split()[2]: ratio for ratio in ratios(rows)}
    for row in rows:
        times = [f"{1e3 * s:.1f}" for s in (row.seconds_median, row.seconds_min, row.seconds_max)]
        ratio = verdict.get(row.system)
        last = [f"{ratio.ratio:.2f}", f"<= {ratio.target:g}: {ratio.verdict}"] if ratio else ["1.00", ""]
        grid.add_row(row.system, *times, *last)
    return grid


if __name__ == "__main__":
    main()
