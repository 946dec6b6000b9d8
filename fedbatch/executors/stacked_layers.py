"""Layers with parameters of many clients side by side: what they give, and one SGD step of their parameters.

Activations of K clients with b examples each travel as one batch of K * b examples, so everything without parameters
runs as it is; a layer with parameters takes each client's own from a stack (K, ...). The backward goes to layer outputs
only, and each layer then updates its stack in place: a client's weight gradient is never written down. A stack of one
set of parameters serves all clients.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedbatch.executors.convolutions import at_once, conv_weight_gradient, grouped_outputs, grouped_weight_gradients
from fedbatch.executors.layer_rules import is_plain
from fedbatch.models.flat import FlatModel

Stack = Sequence[Tensor]
"""A layer's parameters of K clients, each (K, *shape): weight and, where there is one, bias."""


def knows(model: FlatModel) -> bool:
    """Whether every layer with parameters to train has a stacked form."""
    layers = [m for m in model.module.modules() if any(p.requires_grad for p in m.parameters(recurse=False))]
    return all(type(layer) in FORWARDS and is_plain(layer) for layer in layers)


def by_client(t: Tensor, clients: int) -> Tensor:
    """(K * b, ..., size) as (K, b and positions, size)."""
    return t.reshape(clients, -1, t.shape[-1])


def _linear(layer: nn.Linear, stack: Stack, x: Tensor) -> Tensor:
    weight, *bias = stack
    inputs = by_client(x, len(weight))
    y = torch.baddbmm(bias[0][:, None], inputs, weight.mT) if bias else inputs @ weight.mT
    return y.view(*x.shape[:-1], -1)


def _update_linear(layer: nn.Linear, stack: Stack, x: Tensor, g: Tensor, lr: float) -> None:
    weight, *bias = stack
    own = by_client(g, len(weight))
    weight.baddbmm_(own.mT, by_client(x, len(weight)), alpha=-lr)
    if bias:
        bias[0].sub_(own.sum(dim=1), alpha=lr)


def _conv2d(layer: nn.Conv2d, stack: Stack, x: Tensor) -> Tensor:
    weight, *bias = stack
    if len(weight) > 1 and at_once(x):
        own_bias = bias[0] if bias else None
        return grouped_outputs(layer, weight, own_bias, x.unflatten(0, (len(weight), -1))).flatten(0, 1)
    own = [
        F.conv2d(part, w, bias[0][k] if bias else None, layer.stride, layer.padding, layer.dilation, layer.groups)
        for k, (part, w) in enumerate(zip(x.chunk(len(weight)), weight, strict=True))
    ]
    return torch.cat(own) if len(own) > 1 else own[0]


def _update_conv2d(layer: nn.Conv2d, stack: Stack, x: Tensor, g: Tensor, lr: float) -> None:
    weight, *bias = stack
    if at_once(x):
        weight.sub_(grouped_weight_gradients(layer, *(t.unflatten(0, (len(weight), -1)) for t in (x, g))), alpha=lr)
    else:
        for w, part, own in zip(weight, x.chunk(len(weight)), g.chunk(len(weight)), strict=True):
            w.sub_(conv_weight_gradient(layer, w, part, own), alpha=lr)
    if bias:
        bias[0].sub_(by_client(g.sum(dim=(2, 3)), len(weight)).sum(dim=1), alpha=lr)


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
