"""The fused executor: one forward and backward over the batches of many clients, with every client's own norm.

For FedSGD only: all clients' gradients are taken at the same parameters, so their examples can share a batch, and the
weighted sum of gradients is the gradient of a weighted loss. Chunks keep memory flat in the cohort.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedbatch.clients.job import Job, contribution
from fedbatch.clients.parts import Parts
from fedbatch.core.random import Ints
from fedbatch.core.transfer import to_device
from fedbatch.executors.footprint import activation_bytes, example_bytes, model_bytes
from fedbatch.executors.layer_rules import RULES, rule_of
from fedbatch.executors.pool_first import pool_first
from fedbatch.models.dropout import keyed_dropout
from fedbatch.models.flat import FlatModel
from fedbatch.wire.messages import Contribution

Floats = np.ndarray[Any, np.dtype[np.float64]]
CHUNK_BYTES = 64 * 2**20
"""Activations and their gradients of one chunk on a CPU. Small enough to stay near the cache: a whole cohort of a
convolutional network at once is slower than chunks of 50-100 images, while a perceptron's cohort of thousands fits."""
SPREAD = 2
"""Batches of a chunk differ by no more than this factor, as each is padded to the largest."""


def unsupported(job: Job) -> str | None:
    """Why the fused executor cannot do this work, or None if nothing speaks against it."""
    if not job.work.is_gradient:
        return "clients take local steps, so their parameters differ"
    if not getattr(job.loss, "per_example", False):
        return "the loss couples the examples of a batch"
    return unsupported_model(job.model, job.x[:2])


def unsupported_model(model: FlatModel, x: Tensor) -> str | None:
    """Why the model has no fused gradient, by its structure and one forward on inputs ``x`` (n, ...), or None."""
    if model.buffers.numel():
        return "running statistics (batch norm) are a client's own and must not mix"
    named = [(name, m, list(m.parameters(recurse=False))) for name, m in model.module.named_modules()]
    owned = [each for each in named if any(p.requires_grad for p in each[2])]  # what is frozen has no gradient
    parameters = [p for *_, own in owned for p in own]
    if len({id(p) for p in parameters}) < len(parameters):
        return "two layers share a parameter"
    for name, module, own in owned:
        if type(module) not in RULES and any(True for _ in module.children()):
            return f"{name or 'the model'} ({type(module).__name__}) has parameters and layers of its own"
        if not all(p.requires_grad for p in own):
            return f"layer {name} is frozen in part"
    capture = Capture(model.module)
    with capture, torch.no_grad():
        model.module(x.clone())
    if capture.irregular:
        return f"{capture.irregular} does not map one tensor to one"
    if len(capture.layers) != len(owned):
        return "a layer is used twice, or not at all"
    if capture.overwritten():
        return "an in-place operation overwrites a layer's input or output"
    return None


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
    device = job.params.device
    total: Tensor | None = None
    units: Tensor | None = None
    inner, losses, order = [], [], []
    for rows in chunks(job):
        parts = Parts.of(job.draw.counts[rows, 0], job.halves, device, exact=job.clip is not None)
        capture, gradients, loss = _backward(job, rows, parts)
        wide = job.model.widened  # so that what is measured is what is added up
        layers = zip(capture.layers, map(wide, capture.inputs), map(wide, gradients), strict=True)
        products, summed = zip(*[rule_of(layer)(layer, x, g, parts) for layer, x, g in layers], strict=True)
        # (L, K, S, S), of gradients that carry their client's weight
        by_layer = torch.stack([p.double() for p in products])
        by_layer /= to_device(job.weights[rows], device)[:, None, None] ** 2
        factors: Tensor | list[None] = [None] * len(summed)
        if job.clip is not None:
            factors, clipped = job.clip(by_layer.sum(dim=(2, 3)))
            factors = factors.to(job.params)
            inner.append(clipped[:, None, None])
        else:
            inner.append(by_layer.sum(dim=0))
        gradients_of_chunk = [s(f) for s, f in zip(summed, factors, strict=True)]
        total = _added(total, _flat(job.model, capture.layers, gradients_of_chunk))
        if job.cosine:
            unit = _unit_factors(inner[-1], job.weights[rows]).to(job.params)
            units = _added(units, _flat(job.model, capture.layers, [s(unit) for s in summed]))
        losses.append(loss)
        order.append(rows)
    assert total is not None
    unit_sum = job.params[:0] if units is None else units.to(job.params)
    return contribution(job, total.to(job.params), unit_sum, torch.cat(inner), torch.cat(losses), order)


def _backward(job: Job, rows: Ints, parts: Parts) -> tuple["Capture", tuple[Tensor, ...], Tensor]:
    """Activations, gradients of the weighted loss at layer outputs, and each client's mean loss (K,)."""
    counts = job.draw.counts[rows, 0]
    device = job.params.device
    width = int(counts.max())
    positions = job.draw.positions[rows, 0, :width]
    own = positions.ravel() if (counts == width).all() else positions[np.arange(width) < counts[:, None]]
    index = to_device(own, device)
    share = to_device(np.repeat(1 / counts, counts), device).to(job.params)  # (n,), of an example in its client's mean
    weight = to_device(np.repeat(job.weights[rows], counts), device).to(job.params)
    with draws(job, rows, counts), pool_first(job.model.module), Capture(job.model.module) as capture:
        logits = job.model(job.x.index_select(0, index))
        losses = job.loss(logits, job.y.index_select(0, index), reduction="none")
        # A layer that the loss does not use has no gradient: zero, as for the loop.
        gradients = torch.autograd.grad((losses * (share * weight)).sum(), capture.outputs, materialize_grads=True)
    mean = parts.sums(losses.detach() * share).view(parts.clients, parts.parts).sum(dim=1)
    return capture, gradients, mean


def draws(job: Job, rows: Ints, counts: Ints) -> AbstractContextManager[None]:
    """What random layers draw for the examples of the clients in ``rows``, ``counts`` of each, one after another."""
    if not job.model.is_random:
        return nullcontext()
    keys = np.repeat(job.step_seeds(rows, 0), counts)
    slots = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    device = job.params.device
    return keyed_dropout(to_device(keys, device), len(keys), to_device(slots, device), several=True)


def _flat(model: FlatModel, layers: list[nn.Module], gradients: list[list[Tensor]]) -> Tensor:
    """The summed gradients of all layers as one new vector (d,)."""
    by_parameter = {
        id(p): g
        for layer, own in zip(layers, gradients, strict=True)
        for p, g in zip(layer.parameters(recurse=False), own, strict=True)
    }
    return model.join([by_parameter[id(p)] for p in model.trainable])


def _added(total: Tensor | None, vector: Tensor) -> Tensor:
    """The first chunk's vector (d,) as it is, and the sum in float64 once there are more, which is the same number."""
    return vector if total is None else total.double().add_(vector)


def _unit_factors(inner: Tensor, weights: Floats) -> Tensor:
    """Factors (K,) that scale each client's weighted update to length 1; 0 for a zero update."""
    norms = inner.sum(dim=(1, 2)).clamp(min=0).sqrt() * to_device(weights, inner.device)
    return torch.where(norms > 0, 1 / norms, 0)


def chunks(job: Job) -> Iterator[Ints]:
    """Rows of the job, small batches first, cut so that a chunk fits in memory; a client is never split."""
    if job.memory_bytes is None:
        limit, of_client, of_example = float(CHUNK_BYTES), 0, 2 * activation_bytes(job.model, job.x)
    else:
        limit, of_client, of_example = job.memory_bytes, (1 + job.halves) * model_bytes(job), example_bytes(job)
    counts = job.draw.counts[:, 0]
    rows = np.argsort(counts, kind="stable")
    start = taken = 0
    for end, count in enumerate(counts[rows].tolist()):
        needed = of_client + count * of_example
        if taken and (taken + needed > limit or count > SPREAD * counts[rows[start]]):
            yield rows[start:end]
            start, taken = end, 0
        taken += needed
    yield rows[start:]
