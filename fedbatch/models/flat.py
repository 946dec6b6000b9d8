"""A module seen as flat vectors: what a federated round sends, adds up and steps on."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Loss = Callable[..., Tensor]


class FlatModel:
    """A module whose parameters, gradients and floating-point buffers are views of three flat tensors.

    Reading or writing a flat tensor reads or writes the module, so that sending a model, restoring it or taking a
    gradient step is one vector operation however many layers there are. Integer buffers (batch counters) stay local.

    Args:
        module: the module to wrap; it is moved to ``device`` and its tensors become views.
        device: where to compute.
        channels_last: lay convolution weights out with channels last, which is faster on CPUs and tensor cores. Changes
            the order of the flat vector, so both ends of a run must agree.

    Attributes:
        module: the wrapped module.
        params: ``(d,)`` in the module's own dtype.
        grads: ``(d,)``, filled by `loss_and_gradient`.
        buffers: ``(m,)``, empty for models without running statistics.
        trainable: parameters in the order of the flat vector.
        layer_sizes: numbers of parameters of the layers, in the order of the flat vector.
        forward: what `loss_and_gradient` calls: the module, or its compiled form.
    """

    def __init__(self, module: nn.Module, device: str | torch.device = "cpu", channels_last: bool = False):
        self.channels_last = channels_last
        self.module = module.to(device)
        self.trainable = [p for p in module.parameters() if p.requires_grad]
        dtypes = {p.dtype for p in self.trainable}
        if len(dtypes) != 1:
            raise ValueError(f"model: parameters must share one dtype (got {sorted(map(str, dtypes))})")
        with torch.no_grad():
            self.params = self.join([p.detach() for p in self.trainable])
            self.grads = torch.zeros_like(self.params)
            for p, values, grads in zip(self.trainable, self.split(self.params), self.split(self.grads), strict=True):
                p.data, p.grad = values, grads
        self.layer_sizes = self._layer_sizes()
        self.forward: Callable[[Tensor], Tensor] = self.module
        self.buffers = self._flatten_buffers()
        self.has_batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())
        self.has_dropout = any(isinstance(m, nn.modules.dropout._DropoutNd) for m in module.modules())

    def split(self, flat: Tensor) -> list[Tensor]:
        """Views of ``flat`` (..., d) in the shapes of the parameters, leading axes kept."""
        parts = flat.split([p.numel() for p in self.trainable], dim=-1)
        return [self._shape(part, p.shape) for part, p in zip(parts, self.trainable, strict=True)]

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """The flat vector (d,) of tensors in the shapes of the parameters; the inverse of `split`."""
        return torch.cat([(t.permute(0, 2, 3, 1) if self._permuted(t.shape) else t).reshape(-1) for t in tensors])

    def layer_sq_norms(self, flat: Tensor) -> Tensor:
        """Squared norms (L, ...) of the layers of vectors (..., d); a layer is a module with parameters of its own."""
        return torch.stack([part.square().sum(dim=-1) for part in flat.split(self.layer_sizes, dim=-1)])

    def _shape(self, part: Tensor, shape: torch.Size) -> Tensor:
        lead = part.shape[:-1]
        if not self._permuted(shape):
            return part.view(*lead, *shape)
        out, channels, height, width = shape
        return part.view(*lead, out, height, width, channels).movedim(-1, -3)

    def _permuted(self, shape: torch.Size) -> bool:
        return self.channels_last and len(shape) == 4

    def compile(self) -> None:
        """Let `loss_and_gradient` run through ``torch.compile``; the first call compiles."""
        self.forward = torch.compile(self.module)

    def load(self, params: Tensor, buffers: Tensor) -> None:
        """Set the parameters (d,) and the buffers (m,)."""
        self.params.copy_(params)
        self.buffers.copy_(buffers)

    def loss_and_gradient(self, loss: Loss, x: Tensor, y: Tensor) -> Tensor:
        """Mean loss over the batch, a detached scalar; its gradient is left in ``grads``."""
        self.grads.zero_()
        value = loss(self.forward(x), y)
        value.backward()
        return value.detach()

    def _layer_sizes(self) -> list[int]:
        """Parameters come module by module, and a shared one with the module that has it first."""
        order = {id(p): i for i, p in enumerate(self.trainable)}
        sizes = []
        for module in self.module.modules():
            own = [order.pop(id(p)) for p in module.parameters(recurse=False) if id(p) in order]
            sizes.append(sum(self.trainable[i].numel() for i in own))
        return [size for size in sizes if size]

    def _flatten_buffers(self) -> Tensor:
        named = [
            (m, name, b)
            for m in self.module.modules()
            for name, b in m._buffers.items()
            if b is not None and b.is_floating_point()
        ]
        flat = torch.cat([self.params.new_zeros(0), *(b.flatten().to(self.params.dtype) for *_, b in named)])
        for (m, name, b), view in zip(named, flat.split([b.numel() for *_, b in named]), strict=True):
            m._buffers[name] = view.view(b.shape)
        return flat
