"""A GPU that is not there: numbers stay on the CPU, and every rule of a device is kept by watching.

A tensor lies on the virtual GPU if its storage is marked. Two modes of torch watch:

- `_Api` sees calls from Python. ``device="cuda"`` marks the storage of the result, ``t.device`` of a marked tensor is
  ``cuda:0``, and ``t.numpy()`` of a marked tensor raises, as on a GPU.
- `_Kernels` sees every kernel that runs, below autograd and vmap. It raises where marked and unmarked tensors meet,
  marks what a kernel makes, and counts launches, waits and copies by the line of fedbatch that caused them.

So views, in-place kernels, Opacus, vmap and whole runs work, and the results have the bits of a CPU run. It cannot tell
which kernels CUDA lacks, what cuDNN chooses, how TF32 and atomics round, and how much memory is used.
"""

import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")
GIB = 2**30
DEVICE, IS_CUDA, IS_CPU = (getattr(Tensor, name).__get__ for name in ("device", "is_cuda", "is_cpu"))

LAUNCHES_NOTHING = {
    f"aten::{name}"
    for name in """
    view _unsafe_view reshape _reshape_alias t t_ transpose.int transpose_ permute movedim expand slice.Tensor
    select.int detach detach_ alias unsqueeze unsqueeze_ squeeze squeeze.dim squeeze.dims split.Tensor split_with_sizes
    chunk unbind.int as_strided unfold diagonal view_as_real _conj lift lift_fresh empty.memory_format empty_like
    empty_strided new_empty new_empty_strided set_.source_Tensor resize_ is_pinned record_stream sym_size.int
    """.split()
}
WAITS = {
    f"aten::{name}"
    for name in """
    _local_scalar_dense nonzero masked_select _unique2 unique_dim unique_consecutive equal is_nonzero bincount histc
    multinomial
    """.split()
}
"""Kernels after which the host needs a value, or a shape that depends on values."""
MAY_MEET = tuple(
    f"aten::{name}" for name in "copy_ _to_copy set_ index. index_put _index_put _unsafe_index lift".split()
)
"""Kernels that take tensors of both devices: copies, and indices from the host."""


class WrongDevice(RuntimeError):
    """As a GPU says it."""


class VirtualGpu:
    """What lies on the device, and what was done there.

    Attributes:
        launches: by (kernel, line of fedbatch).
        waits: of the host for the device, by (reason, line).
        copied: bytes "up" and "down".
    """

    def __init__(self, memory=64 * GIB):
        self.memory = memory
        self.launches, self.waits, self.copied = Counter(), Counter(), Counter()
        self.depth = 0  # of calls on marked tensors, in which what a kernel makes of nothing is the device's
        self.is_copying = False
        self._marked, self._pinned = {}, {}

    def reset(self):
        """Forget what was counted."""
        for counter in (self.launches, self.waits, self.copied):
            counter.clear()

    @contextmanager
    def active(self):
        """Within it, torch has this GPU."""
        answers = {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "get_device_name": lambda *_: "virtual GPU",
            "get_device_capability": lambda *_: (9, 0),
            "mem_get_info": lambda *_: (self.memory, self.memory),
            "is_bf16_supported": lambda *_: True,
            "synchronize": lambda *_: self.wait("synchronize"),
            "empty_cache": lambda: None,
        }
        with ExitStack() as stack:
            for name, answer in answers.items():
                stack.enter_context(mock.patch.object(torch.cuda, name, answer))
            stack.enter_context(_Kernels(self))
            stack.enter_context(_Api(self))
            yield self

    def has(self, t):
        """Whether a tensor lies here."""
        return _is_in(self._marked, t)

    def take(self, t):
        """Let a tensor lie here."""
        self._marked = _with(self._marked, t)

    def leave(self, t):
        """Let a tensor lie on the host."""
        self._marked.pop(_storage(t)._cdata, None)

    def pin(self, t):
        """Let a tensor of the host be one that is copied without a wait."""
        self._pinned = _with(self._pinned, t)

    def wait(self, reason):
        """Count a wait."""
        self.waits[reason, line()] += 1

    def count_copy(self, t, up, non_blocking=False):
        """Count a copy of the tensor ``t``, whose host waits unless it is pinned and need not be there at once."""
        self.copied["up" if up else "down"] += t.numel() * t.element_size()
        if not (up and non_blocking and _is_in(self._pinned, t)):
            self.wait("copy up" if up else "copy down")


def line():
    """Place in fedbatch that the innermost call comes from."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if "/fedbatch/" in path and "site-packages" not in path:
            return f"{path.split('/fedbatch/')[-1]}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


def _storage(t):
    while torch._C._functorch.is_functorch_wrapped_tensor(t):
        t = torch._C._functorch.get_unwrapped(t)
    return t.untyped_storage()


def _with(storages, t):
    """Storages with that of ``t``; those that are gone are left out from time to time."""
    storage = _storage(t)
    storages[storage._cdata] = StorageWeakRef(storage)
    return storages if len(storages) < 20_000 else {key: s for key, s in storages.items() if not s.expired()}


def _is_in(storages, t):
    try:
        found = storages.get(_storage(t)._cdata)
    except (RuntimeError, NotImplementedError):  # a tensor without storage, as a sparse one
        return False
    return found is not None and not found.expired()


def _is_gpu(device):
    return None if device is None else torch.device(device).type == "cuda"


class _Api(TorchFunctionMode):
    def __init__(self, gpu):
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, gpu = dict(kwargs or {}), self.gpu
        on_gpu = bool(args) and isinstance(args[0], Tensor) and gpu.has(args[0])
        if func in (DEVICE, IS_CUDA, IS_CPU):
            return {DEVICE: CUDA, IS_CUDA: True, IS_CPU: False}[func] if on_gpu else func(*args)
        if func in (Tensor.numpy, Tensor.__array__) and on_gpu:
            raise WrongDevice("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")
        if func is Tensor.tolist and on_gpu:
            gpu.wait("tolist")
            with torch._C.DisableTorchFunction():
                return func(*args)
        if func is Tensor.pin_memory:
            gpu.pin(args[0])
            return args[0]
        if func in (Tensor.cuda, Tensor.cpu):
            return self._moved(args[0], func is Tensor.cuda, {})
        if func is Tensor.to:
            return self._to(*args, **kwargs)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and on_gpu:
            self._count_indices(args[1])
        if (up := _is_gpu(kwargs.get("device"))) is not None:
            return self._made(func, args, kwargs, up)
        if not any(isinstance(t, Tensor) and gpu.has(t) for t in tree_flatten((args, kwargs))[0]):
            return func(*args, **kwargs)
        gpu.depth += 1
        try:
            made = func(*args, **kwargs)
        finally:
            gpu.depth -= 1
        if func is Tensor.new_tensor:  # of Python's numbers
            gpu.count_copy(made, up=True)
            gpu.take(made)
        return made

    def _made(self, func, args, kwargs, up):
        """A tensor that a factory makes on a device."""
        made = func(*args, **{**kwargs, "device": CPU})
        if up and func in (torch.tensor, torch.as_tensor):
            self.gpu.count_copy(made, up=True)
        if isinstance(made, Tensor):
            (self.gpu.take if up else self.gpu.leave)(made)
        return made

    def _count_indices(self, index):
        """Indices from the host are copied at each use."""
        for part in index if isinstance(index, tuple) else (index,):
            is_tensor = isinstance(part, Tensor) and part.dim() and not self.gpu.has(part)
            if isinstance(part, np.ndarray | list) or is_tensor:
                self.gpu.count_copy(torch.as_tensor(part), up=True)

    def _to(self, t, *given, **kwargs):
        device = kwargs.pop("device", None)
        for value in given:
            if isinstance(value, torch.device | str):
                device = value
            elif isinstance(value, Tensor):
                device, kwargs["dtype"] = (CUDA if self.gpu.has(value) else CPU), value.dtype
            elif isinstance(value, torch.dtype):
                kwargs["dtype"] = value
            elif value:
                kwargs["non_blocking"] = True  # the first flag of two, as `Module.to` gives it
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        up = _is_gpu(device)
        return t.to(**kwargs) if up is None and kwargs else t if up is None else self._moved(t, up, kwargs)

    def _moved(self, t, up, kwargs):
        gpu = self.gpu
        if gpu.has(t) == up:
            return t.to(**kwargs) if kwargs else t
        gpu.count_copy(t, up, kwargs.get("non_blocking", False))
        gpu.is_copying = True
        try:
            moved = t.to(**kwargs) if kwargs else t
            moved = moved.clone() if _storage(moved)._cdata == _storage(t)._cdata else moved
        finally:
            gpu.is_copying = False
        (gpu.take if up else gpu.leave)(moved)
        return moved


class _Kernels(TorchDispatchMode):
    def __init__(self, gpu):
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, gpu, name = kwargs or {}, self.gpu, func.name()
        if gpu.is_copying:
            return func(*args, **kwargs)
        inputs = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        on = [gpu.has(t) for t in inputs]
        if any(on):
            self._watch(name, inputs, on, kwargs)
        made = func(*args, **kwargs)
        to_host = name.startswith("aten::copy_") and not on[0]
        if (any(on) and not to_host) or (gpu.depth and not inputs):
            for t in tree_flatten(made)[0]:
                if isinstance(t, Tensor) and not gpu.has(t):
                    gpu.take(t)
        return made

    def _watch(self, name, inputs, on, kwargs):
        gpu = self.gpu
        if name not in LAUNCHES_NOTHING:
            gpu.launches[name, line()] += 1
        if not name.startswith(MAY_MEET) and any(t.dim() for t, here in zip(inputs, on, strict=True) if not here):
            shapes = [(*t.shape, "cuda" if here else "cpu") for t, here in zip(inputs, on, strict=True)]
            raise WrongDevice(f"{name} at {line()}: tensors on cuda:0 and cpu ({shapes})")
        if name.startswith("aten::copy_") and on[0] != on[1] and (inputs[1].dim() or not on[0]):
            gpu.count_copy(inputs[1], up=on[0])
        if name.startswith(("aten::index.", "aten::index_put")) and any(t.dtype == torch.bool for t in inputs[1:]):
            gpu.wait("boolean index")
        if name in WAITS or (name == "aten::repeat_interleave.Tensor" and kwargs.get("output_size") is None):
            gpu.wait(name)
