"""A module seen as flat vectors: what a federated round sends, adds up and steps on."""

import copy
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import accumulate

import torch
from torch import Tensor, nn

Loss = Callable[..., Tensor]


class FlatModel:
    """A module whose parameters and gradients are views of flat tensors, and whose changing buffers are copied to one.

    Reading or writing a flat tensor reads or writes the module, so that sending a model, restoring it or taking a
    gradient step is one vector operation however many layers there are.

    Args:
        module: the module to wrap; it is moved to ``device`` and its parameters become views.
        device: where to compute.
        channels_last: lay convolution weights out with channels last, which is faster on CPUs and tensor cores. Changes
            the order of the flat vector, so both ends of a run must agree.
        changing: names of the buffers that training changes, which travel with the parameters; None = all that hold
            numbers. The others are constants, which every end makes for itself.

    Attributes:
        module: the wrapped module.
        params: ``(d,)`` in the module's own dtype.
        grads: ``(d,)``, filled by `loss_and_gradient`.
        buffers: ``(m,)``, running statistics and, after them, counters; empty for models without. `load` writes them to
            the module, `pull_buffers` reads them back.
        changing: names of the buffers in ``buffers``, in order.
        counters: how many of the last entries of ``buffers`` are whole numbers.
        trainable: parameters in the order of the flat vector.
        names: of these.
        layer_sizes: numbers of parameters of the layers, in the order of the flat vector.
        layer_names: of these, as in ``module.named_modules()``.
        forward: what `loss_and_gradient` calls: the module, or its compiled form.
        is_random: whether a training forward draws random numbers; set by `fedbatch.models.trial`.
        writes_inputs: whether a forward changes its inputs in place; set likewise.
        examples_meet: whether an example's output depends on the others of its batch; set likewise.
        is_bfloat16: whether layers compute in bfloat16 where that is safe (torch.autocast), which has 8 bits.

    Raises:
        ValueError: no parameter to train, parameters of several dtypes, or two that share memory.
    """

    def __init__(
        self,
        module: nn.Module,
        device: str | torch.device = "cpu",
        channels_last: bool = False,
        changing: Collection[str] | None = None,
    ):
        self.channels_last = channels_last
        self.module = module.to(device)
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self.names, self.trainable = [name for name, _ in named], [p for _, p in named]
        _check_parameters(module, self.trainable)
        self._permuted = [channels_last and p.dim() == 4 for p in self.trainable]
        with torch.no_grad():
            self.params = self.join([p.detach() for p in self.trainable])
            self.grads = torch.zeros_like(self.params)
            self._grad_views = self.split(self.grads)
            for p, values, grads in zip(self.trainable, self.split(self.params), self._grad_views, strict=True):
                p.data, p.grad = values, grads
        self.layer_names, self.layer_sizes = map(list, zip(*self._layers().items(), strict=True))
        self.forward: Callable[[Tensor], Tensor] = self.module
        self.is_random = self.examples_meet = self.writes_inputs = self.is_bfloat16 = False
        self.set_changing(changing)

    def set_changing(self, names: Collection[str] | None) -> None:
        """Say which buffers training changes; see ``changing``."""
        owners = {
            f"{path}.{name}".removeprefix("."): (m, name, b)
            for path, m in self.module.named_modules()
            for name, b in m._buffers.items()
            if b is not None
        }
        self.changing = [name for name in owners if names is None or name in names]
        self.changing.sort(key=lambda name: not owners[name][2].is_floating_point())  # counters last
        self._buffers = [owners[name] for name in self.changing]
        self._constants = {name: (*owners[name], owners[name][2]._version) for name in owners.keys() - {*self.changing}}
        self.counters = sum(b.numel() for *_, b in self._buffers if not b.is_floating_point())
        self.buffers = self.params.new_zeros(sum(b.numel() for *_, b in self._buffers))
        self.pull_buffers()

    def pull_buffers(self) -> Tensor:
        """Copy the module's changing buffers to ``buffers``, and return that."""
        for (m, name, _), view in zip(self._buffers, self._buffer_views(), strict=True):
            view.copy_(m._buffers[name])  # by name: a forward may put another tensor in its place
        return self.buffers

    def of_all_floats(self, flat: Tensor) -> Tensor:
        """The changing buffers (m,) out of all floating-point buffers in the module's order, as checkpoints once held.

        Counters, which they did not hold, stay as they are in the module. Another length is returned as it is.
        """
        named = [(name, b) for name, b in self.module.named_buffers() if b.is_floating_point()]
        if flat.numel() == self.buffers.numel() or flat.numel() != sum(b.numel() for _, b in named):
            return flat
        parts = dict(zip([n for n, _ in named], flat.split([b.numel() for _, b in named]), strict=True))
        kept = [parts[name] for name in self.changing if name in parts]
        return torch.cat([*kept, self.buffers[self.buffers.numel() - self.counters :].to(flat)])

    def changed_constant(self) -> str | None:
        """The name of a buffer that has changed though it was told to be constant, or None."""
        for name, (m, own, tensor, version) in self._constants.items():
            if m._buffers.get(own) is not tensor or tensor._version != version:
                return name
        return None

    def _buffer_views(self) -> list[Tensor]:
        shapes = [b.shape for *_, b in self._buffers]
        parts = self.buffers.split([shape.numel() for shape in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]

    def split(self, flat: Tensor) -> list[Tensor]:
        """Views of ``flat`` (..., d) in the shapes of the parameters, leading axes kept."""
        parts = flat.split([p.numel() for p in self.trainable], dim=-1)
        shapes = [p.shape for p in self.trainable]
        return [_shaped(*each) for each in zip(parts, shapes, self._permuted, strict=True)]

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """The flat vectors (..., d) of tensors (..., *shape) of the parameters; the inverse of `split`."""
        flat = [
            (t.movedim(-3, -1) if permuted else t).flatten(t.dim() - p.dim()) if p.dim() else t[..., None]
            for t, p, permuted in zip(tensors, self.trainable, self._permuted, strict=True)
        ]
        return torch.cat(flat, dim=-1)

    def layer_sq_norms(self, flat: Tensor) -> Tensor:
        """Squared norms (L, ...) of the layers of vectors (..., d); a layer is a module with parameters of its own."""
        return torch.stack([part.square().sum(dim=-1) for part in flat.split(self.layer_sizes, dim=-1)])

    def __call__(self, x: Tensor) -> Tensor:
        """Output of the module, in the run's precision; numbers come back in the dtype of the parameters."""
        with self.precision():
            output: Tensor = self.module(x)
        return self.widened(output)

    def widened(self, t: Tensor) -> Tensor:
        """Numbers of a forward or backward in the dtype of the parameters; as they are if they have it."""
        return t.to(self.params.dtype) if self.is_bfloat16 and t.is_floating_point() else t

    def precision(self) -> AbstractContextManager[object]:
        """In it, torch computes a forward in the run's precision; float64 stays as it is."""
        if not self.is_bfloat16:
            return nullcontext()
        return torch.autocast(self.params.device.type, torch.bfloat16, cache_enabled=False)

    def compile(self) -> None:
        """Let `loss_and_gradient` run through ``torch.compile``; the first call compiles."""
        self.forward = torch.compile(self.module)

    def load(self, params: Tensor, buffers: Tensor) -> None:
        """Set the parameters (d,) and the buffers (m,); counters, which are means over clients, are rounded."""
        self.params.copy_(params)
        self.buffers.copy_(buffers)
        with torch.no_grad():
            for (m, name, _), view in zip(self._buffers, self._buffer_views(), strict=True):
                own = m._buffers[name]
                assert own is not None
                own.copy_(view if own.is_floating_point() else view.round())

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Leave parameters, buffers and mode as they were, whatever a forward does to them."""
        params, buffers, training = self.params.clone(), self.pull_buffers().clone(), self.module.training
        try:
            yield
        finally:
            self.load(params, buffers)
            self.module.train(training)

    def own_inputs(self, x: Tensor) -> Tensor:
        """Inputs (n, ...) that a forward may have: a copy if it would change them."""
        return x.clone() if self.writes_inputs else x

    def loss_and_gradient(self, loss: Loss, x: Tensor, y: Tensor) -> Tensor:
        """Mean loss over the batch, a detached scalar; its gradient is left in ``grads``."""
        self.grads.zero_()
        with self.precision():
            output = self.forward(x)
        value = loss(self.widened(output), y)
        value.backward()
        for p, view in zip(self.trainable, self._grad_views, strict=True):
            if p.grad is not view:  # torch replaces what it cannot add to in place, as for a sparse gradient
                if p.grad is not None:
                    view.copy_(p.grad.to_dense())
                p.grad = view
        return value.detach()

    def double(self) -> "FlatModel":
        """A copy in float64, for comparing ways to compute."""
        copied = FlatModel(copy.deepcopy(self.module).double(), self.params.device, self.channels_last, self.changing)
        for name in ("is_random", "examples_meet", "writes_inputs", "is_bfloat16"):
            setattr(copied, name, getattr(self, name))
        return copied

    @property
    def layer_of_parameter(self) -> list[int]:
        """For each trainable parameter the place of its layer in ``layer_sizes``."""
        ends, places = list(accumulate(self.layer_sizes)), accumulate(p.numel() for p in self.trainable)
        return [bisect_left(ends, place) for place in places]

    def _layers(self) -> dict[str, int]:
        """Parameters come module by module, and a shared one with the module that has it first."""
        order = {id(p): i for i, p in enumerate(self.trainable)}
        sizes = {}
        for name, module in self.module.named_modules():
            own = [order.pop(id(p)) for p in module.parameters(recurse=False) if id(p) in order]
            sizes[name] = sum(self.trainable[i].numel() for i in own)
        return {name: size for name, size in sizes.items() if size}


def _shaped(part: Tensor, shape: torch.Size, permuted: bool) -> Tensor:
    lead = part.shape[:-1]
    if not permuted:
        return part.view((*lead, *shape))  # of one number, too
    out, channels, height, width = shape
    return part.view(*lead, out, height, width, channels).movedim(-1, -3)


def _check_parameters(module: nn.Module, trainable: list[nn.Parameter]) -> None:
    dtypes = {p.dtype for p in trainable}
    if not dtypes:
        raise ValueError("model: has no parameter to train; give at least one requires_grad=True")
    if len(dtypes) != 1:
        raise ValueError(f"model: parameters must share one dtype (got {sorted(map(str, dtypes))})")
    if not dtypes <= {torch.float32, torch.float64}:
        raise ValueError(
            f"model: parameters must be float32 or float64 (got {dtypes.pop()}); call .float() on the model"
        )
    owners: dict[int, str] = {}
    for name, other in _aliases(module):
        raise ValueError(
            f"model: {name} shares memory with the parameter {other}, which gets another place; compute it in forward"
        )
    for name, p in module.named_parameters():
        first = owners.setdefault(p.data_ptr(), name) if p.numel() else name
        if first != name and p.requires_grad:
            raise ValueError(
                f"model: {first} and {name} are two parameters that share memory; to tie weights, give both layers the "
                "same nn.Parameter"
            )


def _aliases(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of buffers and plain attributes that are views of a parameter, with the parameter's."""
    parameters = {p.untyped_storage().data_ptr(): name for name, p in module.named_parameters() if p.numel()}
    known = {id(p) for p in module.parameters()}
    for path, m in module.named_modules():
        plain = {name: value for name, value in vars(m).items() if isinstance(value, Tensor)}
        for name, tensor in {**plain, **m._buffers}.items():
            if tensor is None or id(tensor) in known or not tensor.numel() or tensor.is_sparse:
                continue
            if (place := tensor.untyped_storage().data_ptr()) in parameters:
                yield f"{path}.{name}".removeprefix("."), parameters[place]
