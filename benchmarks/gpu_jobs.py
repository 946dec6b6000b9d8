"""Jobs of one node for `benchmarks.gpu_check`: five models, with data drawn from a seed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from fedbatch.clients.clip import Clip
from fedbatch.clients.draw import Draw
from fedbatch.clients.fedsgd import FedSGD
from fedbatch.clients.job import Job
from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.losses import CrossEntropy
from fedbatch.models import cnn, gpt, mlp, resnet18
from fedbatch.models.flat import FlatModel

EXAMPLES, WORDS, CLASSES = 2000, 90, 10


class Kind(NamedTuple):
    """A model, the shape of an example, and whether it is text."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    is_text: bool = False


MODELS = {
    "mlp": Kind(lambda: mlp((1, 28, 28), CLASSES, 32, 1), (1, 28, 28)),
    "cnn": Kind(lambda: cnn((1, 28, 28), CLASSES, 32, 128, "none", 8), (1, 28, 28)),
    "cnn_group": Kind(lambda: cnn((1, 28, 28), CLASSES, 32, 128, "group", 8), (1, 28, 28)),
    "resnet18": Kind(lambda: resnet18((3, 32, 32), CLASSES, 64, "group", 8), (3, 32, 32)),
    "gpt": Kind(lambda: gpt((80,), WORDS, layers=5, width=128, heads=4, tie_weights=False), (80,), True),
}
WORKS = {"fedsgd": FedSGD(), "local": LocalSGD(lr=0.05), "proximal": LocalSGD(lr=0.05, proximal=0.1)}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "halves, cosine": {"halves": True, "cosine": True},
    "clipped": {"clip": Clip(0.5)},
    "clipped by layer": {"clip": Clip(0.5, per_layer=True)},
}


def job(
    name: str,
    device: str,
    work: str,
    clients: int,
    batch: int = 10,
    steps: int = 5,
    dtype: torch.dtype = torch.float32,
    uneven: bool = True,
    **options: Any,
) -> Job:
    """A job of ``clients`` with batches of ``batch``, the last client's half as large if ``uneven``."""
    kind, client_work = MODELS[name], WORKS[work]
    torch.manual_seed(0)
    model = FlatModel(kind.make().to(dtype), device, channels_last=True)
    source = torch.Generator().manual_seed(1)
    if kind.is_text:
        x = torch.randint(WORDS, (EXAMPLES, *kind.shape), generator=source)
        y = torch.randint(WORDS, (EXAMPLES, *kind.shape), generator=source)
    else:
        x = torch.randn(EXAMPLES, *kind.shape, generator=source).to(dtype)
        y = torch.randint(CLASSES, (EXAMPLES,), generator=source)
    counts = np.full((clients, 1 if client_work.is_gradient else steps), batch)
    if uneven and clients > 1:
        counts[-1] = max(2, batch // 2)
    positions = np.random.default_rng(2).integers(0, EXAMPLES, (*counts.shape, batch))
    draw = Draw(positions, counts)
    made = Job(
        model=model,
        loss=CrossEntropy(),
        x=x.to(device),
        y=y.to(device),
        work=client_work,
        clients=np.arange(clients),
        draw=draw,
        weights=draw.num_examples.astype(float),
        params=model.params.clone(),
        buffers=model.buffers.clone(),
    )
    return replace(made, **options)
