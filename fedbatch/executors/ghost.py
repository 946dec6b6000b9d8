"""Ghost clipping by Opacus: norms of examples' gradients from hooks, then one weighted backward (Li et al. 2022).

An independent, widely read implementation beside our own `fused`. No optimizer, engine or loader of Opacus takes part:
two plain passes of autograd, and the module is given back without hooks. It computes in float64: Opacus takes norms
from sums over positions, and in float32 positions that nearly cancel would pass for shorter than what is added up.
"""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedbatch.aggregation.sums import Sum
from fedbatch.clients.job import Job, contribution
from fedbatch.core.transfer import to_device
from fedbatch.executors.fused import chunks, draws
from fedbatch.models.flat import FlatModel
from fedbatch.wire.messages import Contribution


def unsupported(job: Job) -> str | None:
    """Why ghost clipping cannot do this work, or None if nothing speaks against it."""
    work: Any = job.work
    model = job.model
    if not getattr(work, "is_per_example", False):
        return "it clips single examples, for privacy at example level"
    if work.per_layer:
        return "it clips all layers by one factor"
    if model.channels_last and any(p.dim() == 4 for p in model.trainable):
        # Opacus 1.6.0 gives wrong norms of convolutions' gradients in this layout: up to 15 % off, so the bound fails.
        return "Opacus misreads convolutions in channels-last layout (set channels_last=false)"
    if not getattr(job.loss, "per_example", False):
        return "the loss couples the examples of a batch"
    try:
        from opacus.validators import ModuleValidator
    except ImportError:
        return "Opacus is not installed (pip install 'fedbatch[dp]')"
    errors = ModuleValidator.validate(model.module.train(), strict=False)
    return str(errors[0]).splitlines()[0] if errors else None


def ghost(job: Job) -> Contribution:
    """Clip and add the gradients of single examples, in chunks."""
    from opacus.grad_sample import GradSampleModuleFastGradientClipping

    exact = job.model.double()
    exact.load(job.params.double(), job.buffers.double())
    total, squares, losses, order = Sum(job.params), [], [], []
    module = GradSampleModuleFastGradientClipping(exact.module, loss_reduction="sum", use_ghost_clipping=True)
    try:
        for rows in chunks(job):
            index = to_device(job.draw.positions[rows, 0, 0], job.params.device)
            with draws(job, rows, np.ones(len(rows), np.int64)):
                gradients, clipped, loss = _clipped(module, exact, job, index)
            total.add(exact.join(gradients), 1.0)
            squares.append(clipped)
            losses.append(loss)
            order.append(rows)
    finally:
        module.to_standard_module()
    inner = torch.cat(squares)[:, None, None]
    return contribution(job, total.value(), job.params[:0], inner, torch.cat(losses), order)


def _clipped(module: Any, model: FlatModel, job: Job, index: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Summed clipped gradients of a chunk, squared norms (n,) of the clipped ones, and losses (n,)."""
    assert job.clip is not None
    module.enable_hooks()
    x = job.x[index].double() if job.x.is_floating_point() else job.x[index]
    loss = job.loss(module(x), job.y[index], reduction="none")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)  # the first layer's, and right
        torch.autograd.grad(loss.sum(), model.trainable, retain_graph=True)
        factors, clipped = job.clip(module.get_norm_sample().square()[None])
        module.disable_hooks()
        gradients = torch.autograd.grad((loss * factors[0]).sum(), model.trainable)
    return gradients, clipped, loss.detach()
