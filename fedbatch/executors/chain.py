"""The chain executor: the clients of a perceptron in one compiled loop, where what a client needs stays in the cache.

For chains of Linear layers with ReLU between them, under plain cross-entropy, on a CPU with a C compiler. Small nets
cost an executor in PyTorch more in calls than in arithmetic; here a round is one call (chain.c).
"""

from ctypes import c_double, c_int, c_int64, c_void_p
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedbatch.clients.job import Job, contribution
from fedbatch.executors.compiled import NAMES, NotCompiledError, library, product
from fedbatch.executors.pool_first import is_untouched
from fedbatch.models.flat import FlatModel
from fedbatch.wire.messages import Contribution

CHUNK_BYTES = 2**19
"""Inputs of the clients whose gradients are taken at once: half of a usual second-level cache."""
FAILED = {1: "out of memory: can't allocate memory", 2: "a position or label is out of range"}


def unsupported(job: Job) -> str | None:
    """Why the chain executor cannot do this work, or None if nothing speaks against it."""
    if not getattr(job.work, "is_plain_sgd", False) or not getattr(job.loss, "is_plain_cross_entropy", False):
        return "it knows plain SGD on plain cross-entropy only"
    if job.clip is not None or job.halves or job.cosine:
        return "it neither clips, nor measures halves or cosines"
    if job.params.device.type != "cpu" or job.params.dtype not in NAMES or torch.is_autocast_enabled("cpu"):
        return "it computes in float32 on a CPU"
    if widths(job.model) is None:
        return "the model is no chain of Linear layers with ReLU between them"
    if job.y.dim() != 1 or job.y.dtype != torch.int64 or not job.x.is_contiguous() or job.x.dtype != job.params.dtype:
        return "an example is not numbers with one label"
    try:
        library("chain.c", job.params.dtype), product(job.params.dtype)
    except NotCompiledError as error:
        return str(error)
    return None


def widths(model: FlatModel) -> list[int] | None:
    """Widths from input to logits of a chain of Linear and ReLU, all of it trained and as torch made it; else None."""
    module = model.module
    layers = list(module.children())[type(next(module.children(), None)) is nn.Flatten :]
    linear: list[Any] = layers[::2]
    activations = layers[1::2]
    if type(module) is not nn.Sequential or not all(map(is_untouched, [module, *module.children()])):
        return None
    if len(layers) % 2 == 0 or {type(m) for m in linear} != {nn.Linear} or {type(m) for m in activations} - {nn.ReLU}:
        return None
    if [id(p) for m in linear for p in m.parameters()] != [id(p) for p in model.trainable] or any(
        m.bias is None for m in linear
    ):
        return None
    return [int(linear[0].in_features), *(int(m.out_features) for m in linear)]


def chain(job: Job) -> Contribution:
    """Run the clients of ``job`` one after the other in compiled code.

    Raises:
        RuntimeError: a position or label is out of range, or there is no memory.
    """
    sizes = widths(job.model)
    assert sizes is not None
    dtype, (count, steps, width) = job.params.dtype, job.draw.positions.shape
    code, params = library("chain.c", dtype), job.params.contiguous()
    shape_of_net = np.array(sizes, np.int32)
    net = product(dtype), c_int(len(sizes) - 1), _at(shape_of_net), _at(job.x), _at(job.y)
    drawn = [np.ascontiguousarray(array) for array in (job.draw.positions, job.draw.counts, job.weights)]
    found = total, squares, losses = np.zeros(len(params)), np.zeros(count), np.zeros(count)
    arrays = [_at(array) for array in (*drawn, *found)]
    whole = [c_int64(number) for number in (len(job.x), count, width)]
    if job.work.is_gradient:
        most = c_int64(max(width, CHUNK_BYTES // (sizes[0] * job.x.element_size())))
        status = code.fedsgd(*net, whole[0], _at(params), *whole[1:], most, *arrays)
    else:
        work: Any = job.work
        rates = c_double(work.lr), c_double(work.proximal)
        shape = whole[1], c_int64(steps), whole[2]
        status = code.local_sgd(*net, whole[0], _at(params), *shape, *arrays[:3], *rates, *arrays[3:])
    if status:
        raise RuntimeError(FAILED[status])
    inner = torch.from_numpy(squares)[:, None, None]
    update_sum = torch.from_numpy(total).to(dtype)
    return contribution(job, update_sum, params[:0], inner, torch.from_numpy(losses), [np.arange(count)])


def _at(values: Tensor | np.ndarray) -> c_void_p:
    """The address of numbers that lie side by side."""
    return c_void_p(values.data_ptr() if isinstance(values, Tensor) else values.ctypes.data)
