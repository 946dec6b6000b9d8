"""Losses of torch and of others, which take or have a ``reduction``, as losses by example."""

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LIMIT = 1e-9


@dataclass(frozen=True)
class Reduced:
    """The mean of a loss's own values for single examples, which may be means over the numbers of an example.

    Attributes:
        loss: as it was given, for its name and its settings.
        single: gives one value for each example (n,).
    """

    loss: Any
    single: Callable[[Tensor, Tensor], Tensor]

    per_example = True

    def __call__(self, logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """The mean over examples, or with "none" their values (n,)."""
        values = self.single(logits, labels)
        values = values.flatten(1).mean(dim=1) if values.dim() > 1 else values
        return values.mean() if reduction == "mean" else values


def by_example(loss: Any, trial: tuple[Tensor, Tensor]) -> Any:
    """The loss as one by example where it is the mean of its own values for single examples; else as it is.

    That is tried on float64 outputs and labels, at least two examples. With labels of all classes a mean with class
    weights, or one that leaves labels out, stays what it is: a loss of the whole batch.

    >>> trial = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    >>> by_example(torch.nn.functional.cross_entropy, trial).per_example
    True
    >>> weighted = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    >>> hasattr(by_example(weighted, trial), "per_example")
    False
    """
    single = None if hasattr(loss, "per_example") else _single(loss)
    if single is None:
        return loss
    logits, labels = (each.to(_device(loss)) for each in trial)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            given = copy.deepcopy(loss).double() if isinstance(loss, torch.nn.Module) else loss
            tried = _single(given)
            assert tried is not None
            values, mean, alone = tried(logits, labels), given(logits, labels), tried(logits[:1], labels[:1])
            is_mean = values.shape == labels.shape and torch.allclose(values.mean(), mean, rtol=LIMIT, atol=LIMIT)
            return Reduced(loss, single) if is_mean and torch.allclose(values[:1], alone, rtol=LIMIT) else loss
    except Exception:  # it wants other inputs, and is asked again when the model is tried
        return loss


def _single(loss: Any) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The loss without its reduction, None if it has none to leave out."""
    if isinstance(loss, torch.nn.Module):
        if getattr(loss, "reduction", None) != "mean":
            return None
        single: Callable[[Tensor, Tensor], Tensor] = copy.copy(loss)
        single.reduction = "none"  # type: ignore[attr-defined]
        return single
    try:
        takes_it = "reduction" in inspect.signature(loss).parameters
    except (TypeError, ValueError):
        return None
    return _WithoutReduction(loss) if takes_it else None


@dataclass(frozen=True)
class _WithoutReduction:
    loss: Any

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        values: Tensor = self.loss(logits, labels, reduction="none")
        return values


def _device(loss: Any) -> torch.device:
    tensors = [*loss.parameters(), *loss.buffers()] if isinstance(loss, torch.nn.Module) else []
    return tensors[0].device if tensors else torch.device("cpu")
