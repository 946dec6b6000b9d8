"""One SGD step of many clients side by side, layer by layer, for the layers fedbatch knows.

Activations of K clients with b examples each travel as one batch of K * b examples, so everything without parameters
runs as it is; a layer with parameters takes each client's own from a stack (K, ...). The backward goes to layer outputs
only, and each layer then updates its stack in place: a client's weight gradient is never written down.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedbatch.executors.layer_rules import conv_weight_gradient, is_plain
from fedbatch.models.dropout import keyed_dropout
from fedbatch.models.flat import FlatModel, Loss

Stack = Sequence[Tensor]
"""A layer's parameters of K clients, each (K, *shape): weight and, where there is one, bias."""


def knows(model: FlatModel) -> bool:
    """Whether every layer with parameters has a stacked form."""
    layers = [m for m in model.module.modules() if any(True for _ in m.parameters(recurse=False))]
    return all(type(layer) in FORWARDS and is_plain(layer) for layer in layers)


def sgd_step(
    model: FlatModel, stacks: Sequence[Tensor], loss: Loss, x: Tensor, y: Tensor, share: Tensor, lr: float, keys: Tensor
) -> Tensor:
    """Take one step for every client; parameters in ``stacks`` change in place.

    Args:
        model: gives the layers; its own parameters are not touched.
        stacks: (K, *shape) for each trainable parameter, in their order.
        loss: per-example loss.
        x: inputs (K, b, ...).
        y: labels (K, b, ...).
        share: (K, b), weight of each example in its client's mean; 0 for padding.
        lr: learning rate.
        keys: int64 (K,), of what random layers draw for each client in this step.

    Returns:
        Mean loss of each client (K,) before the step.
    """
    with _draws(model, keys, share.shape[1]), _stacked_forward(model, stacks) as calls:
        logits = model.module(x.flatten(0, 1))
        losses = (loss(logits, y.flatten(0, 1), reduction="none").view(share.shape) * share).sum(dim=1)
        gradients = torch.autograd.grad(losses.sum(), [output for *_, output in calls], materialize_grads=True)
    with torch.no_grad():
        for (layer, stack, inputs, _), g in zip(calls, gradients, strict=True):
            UPDATES[type(layer)](layer, stack, inputs, g, lr)
    return losses.detach()


def _draws(model: FlatModel, keys: Tensor, batch: int) -> AbstractContextManager[None]:
    if not model.is_random:
        return nullcontext()
    slots = torch.arange(batch, device=keys.device).repeat(len(keys))
    return keyed_dropout(keys.repeat_interleave(batch), len(slots), slots, several=True)


@contextmanager
def _stacked_forward(
    model: FlatModel, stacks: Sequence[Tensor]
) -> Iterator[list[tuple[nn.Module, Stack, Tensor, Tensor]]]:
    """Let the model's layers use ``stacks``; collects (layer, stack, input, output) of each call."""
    by_parameter = {id(p): s for p, s in zip(model.trainable, stacks, strict=True)}
    calls: list[tuple[nn.Module, Stack, Tensor, Tensor]] = []

    def call(layer: nn.Module, stack: Stack, x: Tensor) -> Tensor:
        output = FORWARDS[type(layer)](layer, stack, x)
        if not output.requires_grad:  # the first layer: its input and its parameters are plain numbers here
            output.requires_grad_()
        calls.append((layer, stack, x.detach(), output))
        return output

    layers = [m for m in model.module.modules() if any(p.requires_grad for p in m.parameters(recurse=False))]
    try:
        for layer in layers:
            layer.forward = partial(call, layer, [by_parameter[id(p)] for p in layer.parameters(recurse=False)])
        yield calls
    finally:
        for layer in layers:
            del layer.forward


def _by_client(t: Tensor, clients: int) -> Tensor:
    """(K * b, ..., size) as (K, b and positions, size)."""
    return t.reshape(clients, -1, t.shape[-1])


def _linear(layer: nn.Linear, stack: Stack, x: Tensor) -> Tensor:
    weight, *bias = stack
    inputs = _by_client(x, len(weight))
    y = torch.baddbmm(bias[0][:, None], inputs, weight.mT) if bias else inputs @ weight.mT
    return y.view(*x.shape[:-1], -1)


def _update_linear(layer: nn.Linear, stack: Stack, x: Tensor, g: Tensor, lr: float) -> None:
    weight, *bias = stack
    own = _by_client(g, len(weight))
    weight.baddbmm_(own.mT, _by_client(x, len(weight)), alpha=-lr)
    if bias:
        bias[0].sub_(own.sum(dim=1), alpha=lr)


def _conv2d(layer: nn.Conv2d, stack: Stack, x: Tensor) -> Tensor:
    weight, *bias = stack
    own = [
        F.conv2d(part, w, bias[0][k] if bias else None, layer.stride, layer.padding, layer.dilation, layer.groups)
        for k, (part, w) in enumerate(zip(x.chunk(len(weight)), weight, strict=True))
    ]
    return torch.cat(own)


def _update_conv2d(layer: nn.Conv2d, stack: Stack, x: Tensor, g: Tensor, lr: float) -> None:
    weight, *bias = stack
    for w, part, own in zip(weight, x.chunk(len(weight)), g.chunk(len(weight)), strict=True):
        w.sub_(conv_weight_gradient(layer, w, part, own), alpha=lr)
    if bias:
        bias[0].sub_(_by_client(g.sum(dim=(2, 3)), len(weight)).sum(dim=1), alpha=lr)


def _affine(normalized: Tensor, stack: Stack, shape: tuple[int, ...]) -> Tensor:
    """Scale and shift per client; ``shape`` is a parameter's shape as it broadcasts against one example."""
    count = len(normalized) // len(stack[0])
    scale, *shift = (p.view(-1, *shape).repeat_interleave(count, dim=0) for p in stack)
    return normalized * scale + shift[0] if shift else normalized * scale


def _update_affine(normalized: Tensor, stack: Stack, g: Tensor, axes: tuple[int, ...], lr: float) -> None:
    for parameter, each in zip(stack, (g * normalized, g), strict=False):
        own = each.sum(dim=axes) if axes else each
        parameter.sub_(own.view(len(parameter), -1, *parameter.shape[1:]).sum(dim=1), alpha=lr)


def _group_norm(layer: nn.GroupNorm, stack: Stack, x: Tensor) -> Tensor:
    normalized = F.group_norm(x, layer.num_groups, None, None, layer.eps)
    return _affine(normalized, stack, (layer.num_channels, *[1] * (x.dim() - 2)))


def _update_group_norm(layer: nn.GroupNorm, stack: Stack, x: Tensor, g: Tensor, lr: float) -> None:
    normalized = F.group_norm(x, layer.num_groups, None, None, layer.eps)
    _update_affine(normalized, stack, g, tuple(range(2, g.dim())), lr)


def _layer_norm(layer: nn.LayerNorm, stack: Stack, x: Tensor) -> Tensor:
    normalized = F.layer_norm(x, layer.normalized_shape, None, None, layer.eps)
    axes = len(layer.normalized_shape)
    return _affine(normalized, stack, (*[1] * (x.dim() - 1 - axes), *layer.normalized_shape))


def _update_layer_norm(layer: nn.LayerNorm, stack: Stack, x: Tensor, g: Tensor, lr: float) -> None:
    normalized = F.layer_norm(x, layer.normalized_shape, None, None, layer.eps)
    _update_affine(normalized, stack, g, tuple(range(1, g.dim() - len(layer.normalized_shape))), lr)


def _embedding(layer: nn.Embedding, stack: Stack, x: Tensor) -> Tensor:
    return stack[0][_owner(stack, x), x]


def _update_embedding(layer: nn.Embedding, stack: Stack, x: Tensor, g: Tensor, lr: float) -> None:
    stack[0].index_put_((_owner(stack, x).expand_as(x), x), -lr * g, accumulate=True)


def _owner(stack: Stack, x: Tensor) -> Tensor:
    clients = torch.arange(len(stack[0]), device=x.device).repeat_interleave(len(x) // len(stack[0]))
    return clients.view(-1, *[1] * (x.dim() - 1))


FORWARDS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv2d,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
    nn.Embedding: _embedding,
}
UPDATES: dict[type[nn.Module], Callable[..., None]] = {
    nn.Linear: _update_linear,
    nn.Conv2d: _update_conv2d,
    nn.GroupNorm: _update_group_norm,
    nn.LayerNorm: _update_layer_norm,
    nn.Embedding: _update_embedding,
}
