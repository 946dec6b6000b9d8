"""Per layer: inner products of each client's own gradient, and the summed gradient of a batch, from activations.

A layer's gradient for a group of examples follows from its input and the gradient at its output alone. So one backward
to layer outputs serves all clients at once, and a client's gradient is not even formed where a cheaper route to its
norm exists. (Goodfellow 2015, arXiv 1510.01799, has the case of groups of one example.)

Every rule takes ``(layer, input, output_gradient, parts)`` and returns the inner products (K, S, S) between the parts
of each client, and a function that gives the summed gradients of the layer's parameters, in their order. That function
takes None, or a factor (K,) for each client: clipping knows its factors only once the norms of all layers are known.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from fedbatch.clients.parts import Parts, inner_products
from fedbatch.core.transfer import to_device
from fedbatch.executors.convolutions import at_once, conv_weight_gradient, grouped_weight_gradients
from fedbatch.executors.rounding import bounded_square, may_round, pairwise

SummedGradients = Callable[[Tensor | None], list[Tensor]]
Result = tuple[Tensor, SummedGradients]
Rule = Callable[..., Result]


def linear(layer: nn.Linear, x: Tensor, g: Tensor, parts: Parts) -> Result:
    """Affine map of (n, ..., in) to (n, ..., out); the axes between are positions within an example.

    With m positions in a part, inner products of single positions cost ``(S m)^2 (in + out)`` a client, the gradients
    themselves ``S m in out``; the cheaper is taken.
    """
    a, b = (_positions(parts.spread(t)) for t in (x, g))  # (K S, m, in) and (K S, m, out)
    width = parts.parts * a.shape[1]
    own = None
    if width * (layer.in_features + layer.out_features) < layer.in_features * layer.out_features:
        a, c = (t.reshape(parts.clients, width, -1) for t in (a, b))
        products = bounded_square(a, c) if parts.exact else pairwise(a, c, parts.parts)
    else:
        own = b.mT @ a  # (K S, out, in)
        products = parts.products(own)
    own_bias = None if layer.bias is None else b.sum(dim=1)
    if own_bias is not None:
        products = products + parts.products(own_bias)

    def summed(factors: Tensor | None) -> list[Tensor]:
        if own is None:
            weight = parts.scaled(g, factors).flatten(0, -2).mT @ x.flatten(0, -2)
        else:
            weight = parts.total(own, factors)
        return [weight] if own_bias is None else [weight, parts.total(own_bias, factors)]

    return products, summed


def conv2d(layer: nn.Conv2d, x: Tensor, g: Tensor, parts: Parts) -> Result:
    """Convolution: the weight gradient of one part after the other, which together cost one ordinary backward.

    Where `at_once` wants one call for all, every part's own gradient is kept.
    """
    if at_once(x):
        kept = [grouped_weight_gradients(layer, parts.spread(x), parts.spread(g))]
        return _from_own(kept if layer.bias is None else [*kept, parts.sums(g.sum(dim=(2, 3)))], parts)
    unscaled = torch.zeros_like(layer.weight)
    squares = []
    sizes = parts.sizes.ravel().tolist()
    slices = zip(x.split(sizes), g.split(sizes), strict=True)
    for _ in range(parts.clients):
        own = [conv_weight_gradient(layer, layer.weight, *next(slices)) for _ in range(parts.parts)]
        squares.append(inner_products(torch.stack([t.reshape(-1) for t in own])))
        for weight in own:
            unscaled += weight
    products = torch.stack(squares)
    doubtful = parts.exact and may_round(layer, x, g, parts, products)
    own_bias = None if layer.bias is None else parts.sums(g.sum(dim=(2, 3)))
    if own_bias is not None:
        products = products + parts.products(own_bias)

    def summed(factors: Tensor | None) -> list[Tensor]:
        weight = unscaled
        if factors is not None:  # once more over the whole batch: cheaper in memory than to keep every part's own
            apart = [k for k, doubt in enumerate(doubtful) if doubt] if doubtful else []
            kept = factors.index_fill(0, torch.tensor(apart, device=x.device), 0.0) if apart else factors
            weight = conv_weight_gradient(layer, layer.weight, x, parts.scaled(g, kept))
            for k in apart:  # the very gradients whose lengths were taken, rounding and all
                own = conv_weight_gradient(layer, layer.weight, x.split(sizes)[k], g.split(sizes)[k])
                weight = weight + factors[k] * own
        return [weight] if own_bias is None else [weight, parts.total(own_bias, factors)]

    return products, summed


def group_norm(layer: nn.GroupNorm, x: Tensor, g: Tensor, parts: Parts) -> Result:
    """Scale and shift of a group norm; its statistics are an example's own, so nothing mixes."""
    normalized = F.group_norm(x, layer.num_groups, None, None, layer.eps)
    own = [parts.sums(t.flatten(2).sum(dim=2) if t.dim() > 2 else t) for t in (g * normalized, g)]
    return _from_own(own, parts)


def layer_norm(layer: nn.LayerNorm, x: Tensor, g: Tensor, parts: Parts) -> Result:
    """Scale and, where there is one, shift of a layer norm over the last axes."""
    normalized = F.layer_norm(x, layer.normalized_shape, None, None, layer.eps)
    axes = len(layer.normalized_shape)
    kinds = [g * normalized] if layer.bias is None else [g * normalized, g]
    own = [parts.sums(_positions(t.flatten(t.dim() - axes)).sum(dim=1)) for t in kinds]  # (K S, size) each
    return _from_own([t.view(-1, *layer.normalized_shape) for t in own], parts)


def embedding(layer: nn.Embedding, x: Tensor, g: Tensor, parts: Parts) -> Result:
    """Rows looked up by (n, ...) indices; gradients of equal tokens are added first, so memory grows with tokens."""
    size = layer.embedding_dim
    part = to_device(np.repeat(np.arange(parts.sizes.size), parts.sizes.ravel()), x.device)  # (n,)
    tokens = x.flatten(1)
    keys = (part // parts.parts)[:, None] * layer.num_embeddings + tokens  # (n, positions): client and token
    pairs, inverse = _distinct(keys, parts.clients * layer.num_embeddings)
    rows = g.new_zeros(len(pairs) * parts.parts, size)
    rows.index_add_(0, (inverse * parts.parts + (part % parts.parts)[:, None]).flatten(), g.reshape(-1, size))
    own = rows.view(-1, parts.parts, size)
    products = rows.new_zeros(parts.clients, parts.parts, parts.parts)
    products.index_add_(0, pairs // layer.num_embeddings, own @ own.mT)

    def summed(factors: Tensor | None) -> list[Tensor]:
        if factors is not None:
            weighted = own.sum(dim=1) * factors[pairs // layer.num_embeddings, None]
            return [torch.zeros_like(layer.weight).index_add_(0, pairs % layer.num_embeddings, weighted)]
        values = g.reshape(-1, size)
        return [torch.zeros_like(layer.weight).index_add_(0, tokens.flatten(), values)]

    return products, summed


def _distinct(keys: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """The distinct ones of ``keys`` (...), below ``limit``, in ascending order, and the place of each key among them.

    On a GPU their number would make the host wait for it: there come others after them that no key has.
    """
    if not keys.is_cuda:
        return torch.unique(keys, return_inverse=True)
    if limit <= keys.numel():
        return torch.arange(limit, device=keys.device), keys
    ordered, order = keys.flatten().sort(stable=True)
    place = (ordered.diff(prepend=ordered[:1]) != 0).cumsum(dim=0)
    inverse = torch.empty_like(place).scatter_(0, order, place)
    return torch.zeros_like(ordered).scatter_(0, place, ordered), inverse.view(keys.shape)


def any_layer(layer: nn.Module, x: Tensor, g: Tensor, parts: Parts) -> Result:
    """Any other layer that maps one tensor to one: each part's own gradients by torch.func, for this layer only."""
    params = {name: p.detach() for name, p in layer.named_parameters(recurse=False)}

    def own_gradients(inputs: Tensor, outputs: Tensor) -> dict[str, Tensor]:
        backward = vjp(lambda p: functional_call(layer, p, (inputs,)), params)[1]
        gradients: dict[str, Tensor] = backward(outputs)[0]
        return gradients

    own = vmap(own_gradients)(parts.spread(x), parts.spread(g))  # each (K S, *shape); padding has g = 0
    return _from_own(list(own.values()), parts)


def _from_own(own: list[Tensor], parts: Parts) -> Result:
    """The result of a rule that has every part's own gradients, one (K S, *shape) for each parameter."""
    products = torch.stack([parts.products(t) for t in own]).sum(dim=0)
    return products, lambda factors: [parts.total(t, factors) for t in own]


def _positions(t: Tensor) -> Tensor:
    """(rows, members, ..., size) as (rows, members and positions, size)."""
    return t if t.dim() == 3 else t.flatten(1, -2) if t.dim() > 3 else t[:, None, :]


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: linear,
    nn.Conv2d: conv2d,
    nn.GroupNorm: group_norm,
    nn.LayerNorm: layer_norm,
    nn.Embedding: embedding,
}
"""Exact types: a subclass may compute something else, and goes by `any_layer`."""


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer has no option and no parameter that the formulas here and in `stacked_layers` leave out."""
    if not {name for name, _ in layer.named_parameters(recurse=False)} <= {"weight", "bias"}:
        return False  # e.g. weight norm, which computes the weight from others
    if isinstance(layer, nn.Conv2d):
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    if isinstance(layer, nn.Embedding):
        return layer.padding_idx is None and layer.max_norm is None and not layer.scale_grad_by_freq
    return True


def rule_of(layer: nn.Module) -> Rule:
    """The rule for a layer."""
    return RULES.get(type(layer), any_layer) if is_plain(layer) else any_layer
