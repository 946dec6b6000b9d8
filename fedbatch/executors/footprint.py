"""How much memory the clients of a job take while they are computed, by which executors cut a job into chunks."""

from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fedbatch.clients.job import Job
from fedbatch.models.flat import FlatModel

_activations: WeakKeyDictionary[FlatModel, int] = WeakKeyDictionary()


def activation_bytes(model: FlatModel, x: Tensor) -> int:
    """Outputs of all layers for one example like those in ``x`` (n, ...), at least 1 byte."""
    if model not in _activations:
        sizes: list[int] = []
        hooks = [
            m.register_forward_hook(
                lambda _m, _i, o: sizes.append(o.numel() * o.element_size()) if isinstance(o, Tensor) else None
            )
            for m in model.module.modules()
            if not list(m.children())
        ]
        try:
            with torch.no_grad():
                model.module(x[:1].clone())
        finally:
            for hook in hooks:
                hook.remove()
        _activations[model] = sum(sizes)
    return max(1, _activations[model])


def example_bytes(job: Job) -> int:
    """One example: its input, activations and their gradients."""
    example = job.x[0]
    return example.numel() * example.element_size() + 2 * activation_bytes(job.model, job.x)


def model_bytes(job: Job) -> int:
    """One vector of parameters, as a client's own gradient or parameters."""
    return job.params.numel() * job.params.element_size()
