"""What the layer-wise optimizers share: a step over batches of tensors, and the trust ratios of the last one."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

Tensors = list[Tensor]
Group = dict[str, Any]
State = dict[str, Any]

CPU_BATCH_BYTES, BATCH_BYTES = 2**22, 2**28
"""Parameters that go through a step together. On a CPU they and their temporaries should stay in the cache; elsewhere
one large batch saves launches, and the limit holds the temporaries down."""


class Layerwise(torch.optim.Optimizer):
    """An optimizer that multiplies each tensor's step by a ratio of that tensor's own.

    A subclass gives `_update`, the step of a list of tensors, in ``torch._foreach`` functions. Tensors may have any
    strides. Those of less than 32 bits are computed with, and keep their state, in float32.
    """

    def __init__(self, params: Any, defaults: Group):
        for name in ("lr", "eps", "weight_decay"):
            if not defaults[name] >= 0:
                raise ValueError(f"{name} must be at least 0 (got {defaults[name]})")
        super().__init__(params, defaults)
        self._ratios: Tensors = []

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; returns what ``closure``, called first and with gradients on, returns.

        Raises:
            ValueError: a parameter has a sparse gradient.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._ratios = []
        for group in self.param_groups:
            for adapt in (True, False):
                chosen = [p for p in group["params"] if adapt != (group["exclude_1d"] and p.dim() <= 1)]
                for tensors in _batches(chosen):
                    ratios = self._step(group if adapt else group | {"weight_decay": 0.0}, tensors, adapt)
                    self._ratios += [ratios] if adapt else []
        return loss

    def trust_ratios(self) -> Tensor:
        """Ratios of the last step (tensors,): of the tensors that are not excluded, in the order of the parameters."""
        return torch.cat(self._ratios) if self._ratios else torch.zeros(0)

    def load_state_dict(self, state_dict: State) -> None:
        """As torch's, but float32 state stays so where torch would cast it to the dtype of the parameter."""
        super().load_state_dict(state_dict)
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        own = [p for group in self.param_groups for p in group["params"]]
        for index, p in zip(saved, own, strict=True):
            for name, value in state_dict["state"].get(index, {}).items():
                if isinstance(value, Tensor):
                    self.state[p][name] = value.to(p.device, working_dtype(p), copy=True)

    def _step(self, group: Group, tensors: Tensors, adapt: bool) -> Tensor:
        grads = [_gradient(p) for p in tensors]
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        params = [p.to(g.dtype) for p, g in zip(tensors, grads, strict=True)]  # p itself unless it is of less bits
        ratios = self._update(group, params, grads, [self.state[p] for p in tensors], adapt)
        for p, stepped in zip(tensors, params, strict=True):
            if stepped is not p:
                p.copy_(stepped)
        return ratios

    @abstractmethod
    def _update(self, group: Group, params: Tensors, grads: Tensors, states: list[State], adapt: bool) -> Tensor:
        """Step ``params`` in place, leaving ``grads`` as they are; the ratios (tensors,), all 1 without ``adapt``."""


def moments(group: Group, grads: Tensors, states: list[State]) -> tuple[Tensors, Tensors]:
    """Running means of gradients and of their squares, started at 0 and brought up to date."""
    beta1, beta2 = group["betas"]
    for state, grad in zip(states, grads, strict=True):
        if not state:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(grad), torch.zeros_like(grad)
    means, squares = [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]
    torch._foreach_lerp_(means, grads, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
    return means, squares


def check_betas(betas: tuple[float, float]) -> None:
    """Refuse decay rates outside [0, 1)."""
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas must be two numbers in [0, 1) (got {betas})")


def quotient(above: Tensor, below: Tensor) -> Tensor:
    """``above / below``, and 1 where either is 0: a tensor that is zero has no scale of its own."""
    return torch.where((above > 0) & (below > 0), above / below, 1)


def working_dtype(p: Tensor) -> torch.dtype:
    """The dtype of a parameter's arithmetic and state: its own, at least float32."""
    return torch.promote_types(p.dtype, torch.float32)


def _gradient(p: Tensor) -> Tensor:
    grad = p.grad
    assert grad is not None
    if grad.layout != torch.strided:
        raise ValueError("sparse gradients have no layer-wise norm here; use nn.Embedding(sparse=False)")
    return grad.to(working_dtype(p))


def _batches(params: Tensors) -> Iterator[Tensors]:
    """The parameters that have a gradient, in their order, in lists of one device and dtype and limited size."""
    batch: Tensors = []
    size = 0
    for p in params:
        if p.grad is None:
            continue
        limit = CPU_BATCH_BYTES if p.device.type == "cpu" else BATCH_BYTES
        own = p.numel() * p.element_size()
        if batch and (size + own > limit or (p.device, p.dtype) != (batch[0].device, batch[0].dtype)):
            yield batch
            batch, size = [], 0
        batch.append(p)
        size += own
    if batch:
        yield batch
