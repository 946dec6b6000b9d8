"""Max-pooling before the activation instead of after it: the same numbers, and the activation has less to do.

``max(f(x)) = f(max(x))`` where f does not decrease. Gradients are the same, too, for the activations here: each is
either the identity, so that the largest input is the largest output, or flat, where its gradient is zero whichever of
equal outputs is taken.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardtanh)
"""Exact types. Others may round unequal inputs to equal outputs where their gradient is not zero. Where an input is not
a number ReLU alone has the same gradient: torch's others pass it on, or not, by its place in memory."""

Order = list[nn.Module]


@contextmanager
def pool_first(module: nn.Module) -> Iterator[None]:
    """Let every plain ``nn.Sequential`` in the module pool first where that is the same; it is as before afterwards."""
    orders = reordered(module)
    try:
        for sequential, order in orders:
            sequential.forward = partial(_in_turn, order)
        yield
    finally:
        for sequential, _ in orders:
            del sequential.forward


def reordered(module: nn.Module) -> list[tuple[nn.Module, Order]]:
    """The sequentials with another order, and that order."""
    orders = [(m, _pool_first(list(m))) for m in module.modules() if type(m) is nn.Sequential]
    return [(m, order) for m, order in orders if order != list(m) and is_untouched(m)]


def _pool_first(layers: Order) -> Order:
    order = list(layers)
    for i in range(len(order) - 1):
        first, second = order[i : i + 2]
        if type(first) in ACTIVATIONS and type(second) is nn.MaxPool2d and _may_swap(first, second):
            order[i : i + 2] = second, first
    return order


def _may_swap(activation: nn.Module, pool: nn.MaxPool2d) -> bool:
    """Not in place, which others may see; not for indices; and without windows that hold padding alone."""
    if getattr(activation, "inplace", False) or pool.return_indices or pool.dilation not in (1, (1, 1), [1, 1]):
        return False
    return is_untouched(activation) and is_untouched(pool)


def is_untouched(module: nn.Module) -> bool:
    """Whether a call of the module is its type's forward and nothing else."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    anywhere = torch.nn.modules.module._has_any_global_hook()
    return "forward" not in vars(module) and not anywhere and not any(getattr(module, name) for name in hooks)


def _in_turn(order: Order, x: Tensor) -> Tensor:
    for layer in order:
        x = layer(x)
    return x
