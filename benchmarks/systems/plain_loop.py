"""Clients one after another in plain PyTorch, written as well as one can without batching over clients.

All parameters are views of one vector and all gradients of another, so that a client costs a few vector
operations besides its forward and backward passes, and no optimizer, state dict or deep copy. A round's
examples are gathered in one go.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.workload import Data, Workload, build_model, flat


class PlainLoop:
    """Sequential clients; ``with_norms`` also takes each client's squared gradient (or update) norm."""

    def __init__(self, workload: Workload, data: Data, with_norms: bool = True, channels_last: bool = True) -> None:
        self.workload, self.data, self.with_norms = workload, data, with_norms
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = build_model(workload.model, workload.seed).to(data.x.device, memory_format=layout)
        self.weights, self.gradient = flat_views(self.model)
        self.squared_norms: Tensor | None = None  # (cohort,) of the last round

    def round(self, round_: int) -> None:
        """One federated round."""
        batches = self.workload.batches(self.data, round_)
        x = self.data.x.index_select(0, batches.flatten())  # several times faster here than x[batches]
        x, y = x.view(*batches.shape, *x.shape[1:]), self.data.y[batches]  # (cohort, steps, batch, ...)
        if self.workload.work == "fedsgd":
            self._fedsgd(x[:, 0], y[:, 0])
        else:
            self._local_sgd(x, y)

    def params(self) -> Tensor:
        """Parameters after the rounds so far."""
        return flat(self.model)  # not the weights as they lie: channels last permutes them

    def _fedsgd(self, x: Tensor, y: Tensor) -> None:
        if self.with_norms:
            total, norms = torch.zeros_like(self.gradient), []
            for client_x, client_y in zip(x, y, strict=True):
                self.gradient.zero_()
                self._accumulate_gradient(client_x, client_y)
                norms.append(self.gradient.dot(self.gradient))
                total += self.gradient
            self.squared_norms = torch.stack(norms)
        else:
            self.gradient.zero_()
            for client_x, client_y in zip(x, y, strict=True):
                self._accumulate_gradient(client_x, client_y)  # clients' gradients add up where they are
            total = self.gradient
        # All clients have the same number of examples, so the example-weighted mean is the mean.
        self.weights.add_(total, alpha=-self.workload.learning_rate / len(x))

    def _local_sgd(self, x: Tensor, y: Tensor) -> None:
        start, total, norms = self.weights.clone(), torch.zeros_like(self.weights), []
        for client_x, client_y in zip(x, y, strict=True):
            for batch_x, batch_y in zip(client_x, client_y, strict=True):
                self.gradient.zero_()
                self._accumulate_gradient(batch_x, batch_y)
                self.weights.add_(self.gradient, alpha=-self.workload.learning_rate)
            self.weights -= start
            if self.with_norms:
                norms.append(self.weights.dot(self.weights))
            total += self.weights
            self.weights.copy_(start)
        self.squared_norms = torch.stack(norms) if norms else None
        self.weights.add_(total, alpha=1 / len(x))

    def _accumulate_gradient(self, x: Tensor, y: Tensor) -> None:
        cross_entropy(self.model(x), y).backward()


def flat_views(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Move parameters and gradients of ``model`` into two vectors, of which they become views."""
    parameters = list(model.parameters())
    weights = torch.zeros(sum(parameter.numel() for parameter in parameters), device=parameters[0].device)
    gradient, offset = torch.zeros_like(weights), 0
    for parameter in parameters:
        place = (parameter.shape, parameter.stride(), offset)
        parameter.data = weights.as_strided(*place).copy_(parameter.data)
        parameter.grad = gradient.as_strided(*place)
        offset += parameter.numel()
    return weights, gradient
