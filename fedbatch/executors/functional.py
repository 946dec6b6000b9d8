"""The model as a function of given parameters, for torch.func: losses and gradients of clients side by side."""

from collections.abc import Callable
from contextlib import nullcontext

from torch import Tensor
from torch.func import functional_call, grad_and_value
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedbatch.clients.job import Job
from fedbatch.clients.parts import Floats
from fedbatch.core.random import Ints
from fedbatch.core.transfer import to_device
from fedbatch.models.dropout import keyed_dropout
from fedbatch.models.flat import FlatModel, Loss


def loss_gradient(model: FlatModel, loss: Loss) -> Callable[..., tuple[dict[str, Tensor], Tensor]]:
    """Gradients by name and loss of a weighted batch, for ``torch.func.vmap``."""

    # Fused attention has no batching rule, on a GPU for its backward alone: vmap would call it for each client in turn.
    @sdpa_kernel(SDPBackend.MATH)
    def weighted_loss(
        params: dict[str, Tensor], x: Tensor, y: Tensor, share: Tensor, key: Tensor, first: Tensor
    ) -> Tensor:
        with keyed_dropout(key, len(share), first, several=True) if model.is_random else nullcontext():
            with model.precision():
                output = functional_call(model.module, params, (x,))
            return (loss(model.widened(output), y, reduction="none") * share).sum()

    return grad_and_value(weighted_loss)


def batch(job: Job, index: Ints, share: Floats) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs (K, b, ...), labels (K, b, ...) and shares (K, b) of the examples at ``index`` (K, b), on the device."""
    device = job.params.device
    flat = to_device(index.ravel(), device)
    x = job.x.index_select(0, flat).view(*index.shape, *job.x.shape[1:])
    y = job.y.index_select(0, flat).view(*index.shape, *job.y.shape[1:])
    return x, y, to_device(share, device).to(job.params)


def names(model: FlatModel) -> list[str]:
    """Of the trainable parameters, in their order."""
    return [name for name, p in model.module.named_parameters() if p.requires_grad]
