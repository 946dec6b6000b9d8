"""The fused executor: one forward and backward over the batches of many clients, with every client's own norm.

For FedSGD only: all clients' gradients are taken at the same parameters, so their examples can share a batch, and the
weighted sum of gradients is the gradient of a weighted loss. Chunks keep memory flat in the cohort.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedbatch.aggregate import Sum
from fedbatch.clients.job import ClientWork, Job, contribution
from fedbatch.clients.layer_rules import RULES, rule_of
from fedbatch.clients.parts import Parts
from fedbatch.messages import Contribution
from fedbatch.models.flat import FlatModel, Loss

Floats = np.ndarray[Any, np.dtype[np.float64]]
CHUNK_BYTES = 64 * 2**20
"""Activations of one chunk. Small enough to stay near the cache on a CPU: a whole cohort of a convolutional network at
once is slower than chunks of 50-100 images, while a perceptron's cohort of thousands fits whole."""


def unsupported(work: ClientWork, loss: Loss, model: FlatModel, shape: tuple[int, ...]) -> str | None:
    """Why the fused executor cannot do this work, or None if it can."""
    if not work.is_gradient:
        return "clients take local steps, so their parameters differ"
    if not getattr(loss, "per_example", False):
        return "the loss couples the examples of a batch"
    return unsupported_model(model, shape)


@lru_cache(maxsize=8)
def unsupported_model(model: FlatModel, shape: tuple[int, ...]) -> str | None:
    """Why the model has no fused gradient, or None."""
    if model.buffers.numel():
        return "running statistics (batch norm) are a client's own and must not mix"
    if model.has_dropout:
        return "dropout draws for the whole batch and not for each client"
    owned = [(name, m, list(m.parameters(recurse=False))) for name, m in model.module.named_modules()]
    parameters = [p for *_, own in owned for p in own]
    if len({id(p) for p in parameters}) < len(parameters):
        return "two layers share a parameter"
    for name, module, own in owned:
        if own and type(module) not in RULES and any(True for _ in module.children()):
            return f"{name or 'the model'} ({type(module).__name__}) has parameters and layers of its own"
        if len({p.requires_grad for p in own}) > 1:
            return f"layer {name} is frozen in part"
    capture = Capture(model.module)
    with capture, torch.no_grad():
        model.module(torch.zeros(2, *shape, dtype=model.params.dtype, device=model.params.device))
    if capture.irregular:
        return f"{capture.irregular} does not map one tensor to one"
    if len(capture.layers) != sum(1 for _, _, own in owned if own and own[0].requires_grad):
        return "a layer is used twice, or not at all"
    if capture.overwritten():
        return "an in-place operation overwrites a layer's input or output"
    return None


@lru_cache(maxsize=8)
def examples_per_chunk(model: FlatModel, shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Examples whose activations and their gradients fit in ``CHUNK_BYTES``."""
    sizes: list[int] = []
    hooks = [
        m.register_forward_hook(lambda _m, _i, o: sizes.append(o.numel() * o.element_size()))
        for m in model.module.modules()
        if not list(m.children())
    ]
    with torch.no_grad():
        model.module(torch.zeros(1, *shape, dtype=dtype, device=model.params.device))
    for hook in hooks:
        hook.remove()
    return max(1, CHUNK_BYTES // (2 * max(1, sum(sizes))))


class Capture:
    """Inputs and outputs of the layers that have parameters, in the order of the forward pass."""

    def __init__(self, module: nn.Module):
        self.layers: list[nn.Module] = []
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self._versions: list[tuple[int, int]] = []
        self._module = module
        self.irregular = ""  # the type of a layer that was called in another way

    def __enter__(self) -> "Capture":
        self._hooks = [
            m.register_forward_hook(self._keep)
            for m in self._module.modules()
            if any(p.requires_grad for p in m.parameters(recurse=False))
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep(self, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
            self.irregular = type(layer).__name__
            return
        self.layers.append(layer)
        self.inputs.append(inputs[0].detach())
        self.outputs.append(output)
        self._versions.append((inputs[0]._version, output._version))

    def overwritten(self) -> bool:
        """Whether anything captured has been changed in place since."""
        now = [(i._version, o._version) for i, o in zip(self.inputs, self.outputs, strict=True)]
        return now != self._versions


def fused(job: Job) -> Contribution:
    """Run all clients of ``job`` at once, in chunks."""
    job.model.load(job.params, job.buffers)
    total, units = Sum(job.params), Sum(job.params)
    inner, losses = [], []
    for rows in chunks(job):
        parts = Parts.of(job.draw.counts[rows, 0], job.halves, job.params.device)
        capture, gradients, loss = _backward(job, rows, parts)
        layers = zip(capture.layers, capture.inputs, gradients, strict=True)
        products, summed = zip(*[rule_of(layer)(layer, x, g, parts) for layer, x, g in layers], strict=True)
        by_layer = torch.stack(products)  # (L, K, S, S), of gradients that carry their client's weight
        by_layer /= torch.from_numpy(job.weights[rows]).to(by_layer)[:, None, None] ** 2
        factors: Tensor | list[None] = [None] * len(summed)
        if job.clip is not None:
            factors, clipped = job.clip(by_layer.sum(dim=(2, 3)))
            inner.append(clipped[:, None, None])
        else:
            inner.append(by_layer.sum(dim=0))
        _add(job.model, capture.layers, [s(f) for s, f in zip(summed, factors, strict=True)], total)
        if job.cosine:
            unit = _unit_factors(inner[-1], job.weights[rows])
            _add(job.model, capture.layers, [s(unit) for s in summed], units)
        losses.append(loss)
    return contribution(job, total.value(), units.value(), torch.cat(inner), torch.cat(losses))


def _backward(job: Job, rows: slice, parts: Parts) -> tuple["Capture", tuple[Tensor, ...], Tensor]:
    """Activations, gradients of the weighted loss at layer outputs, and each client's mean loss (K,)."""
    counts = job.draw.counts[rows, 0]
    device = job.params.device
    present = np.arange(job.draw.positions.shape[2]) < counts[:, None]
    index = torch.from_numpy(job.draw.positions[rows, 0][present]).to(device)
    share = torch.from_numpy(np.repeat(1 / counts, counts)).to(job.params)  # (n,), of an example in its client's mean
    weight = torch.from_numpy(np.repeat(job.weights[rows], counts)).to(job.params)
    with Capture(job.model.module) as capture:
        logits = job.model.module(job.x.index_select(0, index))
    losses = job.loss(logits, job.y.index_select(0, index), reduction="none")
    gradients = torch.autograd.grad((losses * (share * weight)).sum(), capture.outputs)
    own = parts.sums(losses.detach() * share).view(parts.clients, parts.parts).sum(dim=1)
    return capture, gradients, own


def _add(model: FlatModel, layers: list[nn.Module], gradients: list[list[Tensor]], total: Sum) -> None:
    """Add the summed gradients of all layers to the flat ``total``."""
    by_parameter = {
        id(p): g
        for layer, own in zip(layers, gradients, strict=True)
        for p, g in zip(layer.parameters(recurse=False), own, strict=True)
    }
    for view, p in zip(model.split(total.total), model.trainable, strict=True):
        view += by_parameter[id(p)]


def _unit_factors(inner: Tensor, weights: Floats) -> Tensor:
    """Factors (K,) that scale each client's weighted update to length 1; 0 for a zero update."""
    norms = inner.sum(dim=(1, 2)).clamp(min=0).sqrt() * torch.from_numpy(weights).to(inner)
    return torch.where(norms > 0, 1 / norms, 0)


def chunks(job: Job) -> Iterator[slice]:
    """Rows of the job, cut so that a chunk's examples fit in memory; a client is never split."""
    limit = examples_per_chunk(job.model, tuple(job.x.shape[1:]), job.x.dtype)
    counts = job.draw.counts[:, 0]
    start = taken = 0
    for row, count in enumerate(counts.tolist()):
        if taken and taken + count > limit:
            yield slice(start, row)
            start, taken = row, 0
        taken += count
    yield slice(start, len(counts))
