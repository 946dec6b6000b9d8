"""The limit: one plain fused forward and backward over a round's examples, knowing nothing of clients.

It is what PyTorch's own layers need for these gradients, so an executor is measured against it. For
``local_sgd`` it is only a yardstick of cost: one gradient on as many examples, not the same parameters.
"""

import time
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.workload import Data, ModelName, Workload, build_model, flat, random_data

MICROBATCHES = (50, 100, 200, 500)  # besides everything at once
PROBE_EXAMPLES = 500  # the largest microbatch; the CNN needs half a second for them


class FusedLimit:
    """FedSGD as one large batch, in microbatches so that activations stay in the processor's cache."""

    def __init__(
        self, workload: Workload, data: Data, microbatch: int | None = None, channels_last: bool = False
    ) -> None:
        self.workload, self.data, self.microbatch = workload, data, microbatch
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = build_model(workload.model, workload.seed).to(data.x.device, memory_format=layout)
        self.parameters = list(self.model.parameters())
        # Kept between rounds: to allocate megabytes anew is to have every page of them faulted in again.
        self.x = data.x.new_empty(workload.batches(data, 0).numel(), *data.x.shape[1:])

    def round(self, round_: int) -> None:
        """One gradient step on the round's examples."""
        examples = self.workload.batches(self.data, round_).flatten()
        torch.index_select(self.data.x, 0, examples, out=self.x)
        size = self.microbatch or len(examples)
        for x, y in zip(self.x.split(size), self.data.y[examples].split(size), strict=True):
            (cross_entropy(self.model(x), y, reduction="sum") / len(examples)).backward()
        with torch.no_grad():
            gradients = [parameter.grad for parameter in self.parameters]
            torch._foreach_add_(self.parameters, gradients, alpha=-self.workload.learning_rate)
        self.model.zero_grad()

    def params(self) -> Tensor:
        """Parameters after the rounds so far."""
        return flat(self.model)


def best(workload: Workload, data: Data) -> FusedLimit:
    """The fastest way of running the limit on this machine with the present number of threads."""
    return FusedLimit(workload, data, **candidates(workload, data)[0])


def candidates(workload: Workload, data: Data) -> list[dict[str, Any]]:
    """Options of limits worth measuring: the fastest in a quick probe, then what is usually the fastest."""
    examples, device = workload.batches(data, 0).numel(), data.x.device.type
    if workload.is_convolutional and device == "cpu":
        examples = min(examples, PROBE_EXAMPLES)
    probed = _fastest(workload.model, examples, torch.get_num_threads(), device)
    usual = [(50, True), (100, True)] if workload.is_convolutional else [(None, False)]
    return [{"microbatch": size, "channels_last": last} for size, last in dict.fromkeys([probed, *usual])]


@cache
def _fastest(model: ModelName, examples: int, threads: int, device: str) -> tuple[int, bool]:
    """Microbatch and layout that take the least, of several rounds over all of them in turn."""
    workload = Workload("fedsgd", model, cohort=1, batch_size=examples)
    data = random_data(population=1, examples=examples, device=device, model=model)
    systems = {
        (microbatch, channels_last): FusedLimit(workload, data, microbatch, channels_last)
        for microbatch in [size for size in MICROBATCHES if size < examples] + [examples]
        for channels_last in ((False, True) if workload.is_convolutional else (False,))
    }
    seconds = {option: float("inf") for option in systems}
    for _ in range(4):
        for option, system in systems.items():
            seconds[option] = min(seconds[option], _seconds(system))
    return min(seconds, key=seconds.__getitem__)


def _seconds(system: FusedLimit) -> float:
    start = time.perf_counter()
    system.round(0)
    if system.data.x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start
