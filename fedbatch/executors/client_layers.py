"""The layers of many clients who take local steps: what each client has of its own, and one SGD step of all.

Before the first step all clients have the global parameters, which need no copy. After it a layer has a stack for each
of its parameters, in the forms of `stacked_layers`; a large Linear layer may have its weight in the form of `low_rank`.
"""

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from fedbatch.executors.low_rank import Factors
from fedbatch.executors.stacked_layers import FORWARDS, UPDATES, by_client
from fedbatch.executors.updates import Differences, ParameterUpdates, Stack
from fedbatch.models.dropout import keyed_dropout
from fedbatch.models.flat import FlatModel, Loss

Call = tuple["ClientLayer", Tensor, Tensor]
"""A layer, its input and its output."""


@dataclass
class ClientLayer:
    """One layer with parameters of K clients.

    Attributes:
        layer: as the model has it; gives the options.
        start: the global parameters, each (*shape).
        clients: K.
        steps: that will be taken, for a Linear layer whose weights are kept as factors; else 0.
        stack: each client's parameters, each (K, *shape), without the weight where it has factors; None before the
            first step.
        factors: start minus the weights, where that is kept as a product.
    """

    layer: nn.Module
    start: list[Tensor]
    clients: int
    steps: int = 0
    stack: list[Tensor] | None = None
    factors: Factors | None = None

    def forward(self, x: Tensor, active: int) -> Tensor:
        """The layer's output for examples (active * b, ...) of the first clients."""
        form = FORWARDS[type(self.layer)]
        if self.stack is None:
            return form(self.layer, [p[None] for p in self.start], x)
        if self.factors is not None:
            inputs = by_client(x, active)
            if self.factors.has_room(inputs.shape[1]):
                y = self.factors.forward(inputs)
                for bias in self.stack:
                    y = y + bias[:active, None]
                return y.view(*x.shape[:-1], -1)
            self._write_down()
        return form(self.layer, [p[:active] for p in self.stack], x)

    def pull(self, active: int, share: float) -> None:
        """Bring the first clients' parameters nearer to the global ones, by a share of the difference."""
        if self.factors is not None:
            self.factors.shrink(active, 1 - share)
        for p, start in zip(self.stack or [], self._stacked(), strict=False):
            p[:active].lerp_(start, share)

    def update(self, x: Tensor, g: Tensor, lr: float, active: int) -> None:
        """One step of the first clients, from the layer's input and the gradient at its output."""
        if self.stack is None:
            if self.steps:
                room = self.steps * by_client(g, active).shape[1]
                self.factors = Factors.with_room(self.start[0], self.clients, room)
            self.stack = [repeated(p, self.clients) for p in self._stacked()]
        own = [p[:active] for p in self.stack]
        if self.factors is None:
            UPDATES[type(self.layer)](self.layer, own, x, g, lr)
            return
        gradients = by_client(g, active)
        self.factors.append(by_client(x, active), gradients, lr)
        for bias in own:
            bias.sub_(gradients.sum(dim=1), alpha=lr)

    def differences(self) -> list[Differences]:
        """Start minus end of each parameter; the stack is spent."""
        stack = [repeated(p, self.clients) for p in self.start] if self.stack is None else self.stack
        own: list[Differences] = [
            Stack(torch.sub(start, p, out=p)) for start, p in zip(self._stacked(), stack, strict=True)
        ]
        return own if self.factors is None else [self.factors, *own]

    def _stacked(self) -> list[Tensor]:
        """The global parameters of which there is a stack."""
        return self.start if self.factors is None else self.start[1:]

    def _write_down(self) -> None:
        assert self.factors is not None and self.stack is not None
        self.stack = [self.start[0] - self.factors.each(), *self.stack]
        self.factors = None


class ClientLayers:
    """A model's layers, with parameters of many clients.

    Args:
        model: gives the layers; its own parameters are not touched.
        params: global parameters (d,).
        clients: K.
        steps: that will be taken.
        factored: Linear layers whose weights are kept as factors.
    """

    def __init__(
        self, model: FlatModel, params: Tensor, clients: int, steps: int = 0, factored: Collection[nn.Module] = ()
    ):
        self.model = model
        views = {id(p): view for p, view in zip(model.trainable, model.split(params), strict=True)}
        self._layers = [
            ClientLayer(m, [views[id(p)] for p in m.parameters(recurse=False)], clients, steps * (m in factored))
            for m in model.module.modules()
            if any(p.requires_grad for p in m.parameters(recurse=False))
        ]

    def step(
        self, loss: Loss, x: Tensor, y: Tensor, share: Tensor, lr: float, pull: float, keys: Tensor | None
    ) -> Tensor:
        """Take one step for the first k clients.

        Args:
            loss: per-example loss.
            x: inputs (k, b, ...).
            y: labels (k, b, ...).
            share: (k, b), weight of each example in its client's mean; 0 for padding.
            lr: learning rate.
            pull: share of the way back to the global parameters, of those before the step.
            keys: int64 (k,), of what random layers draw for each client in this step; None if the model has none.

        Returns:
            Mean loss of each client (k,) before the step.
        """
        with draws(keys, share.shape[1]), self._forwards(len(share)) as calls:
            logits = self.model(x.flatten(0, 1))
            losses = (loss(logits, y.flatten(0, 1), reduction="none").view(share.shape) * share).sum(dim=1)
            gradients = torch.autograd.grad(losses.sum(), [output for *_, output in calls], materialize_grads=True)
        with torch.no_grad():
            for layer in self._layers if pull else []:
                layer.pull(len(share), pull)
            for (layer, inputs, _), g in zip(calls, gradients, strict=True):
                layer.update(self.model.widened(inputs), self.model.widened(g), lr, len(share))
        return losses.detach()

    def updates(self) -> ParameterUpdates:
        """Start minus end of every client; the layers are spent."""
        found = {
            id(p): difference
            for own in self._layers
            for p, difference in zip(own.layer.parameters(recurse=False), own.differences(), strict=True)
        }
        return ParameterUpdates(self.model, [found[id(p)] for p in self.model.trainable])

    @contextmanager
    def _forwards(self, active: int) -> Iterator[list[Call]]:
        """Let the model's layers use their clients' parameters; collects the calls."""
        calls: list[Call] = []

        def call(own: ClientLayer, x: Tensor) -> Tensor:
            output = own.forward(x, active)
            if not output.requires_grad:  # the first layer: its input and its parameters are plain numbers here
                output.requires_grad_()
            calls.append((own, x.detach(), output))
            return output

        try:
            for own in self._layers:
                own.layer.forward = partial(call, own)
            yield calls
        finally:
            for own in self._layers:
                del own.layer.forward


def repeated(p: Tensor, clients: int) -> Tensor:
    """A parameter (*shape) for each client, in new memory and with the parameter's own strides.

    Strides also tell torch the layout of a convolution with one input channel, which has two names for one order.
    """
    return p.new_empty_strided((clients, *p.shape), (p.numel(), *p.stride())).copy_(p)


def draws(keys: Tensor | None, batch: int) -> AbstractContextManager[None]:
    """What random layers draw for clients with ``batch`` examples each, by a key (k,) a client."""
    if keys is None:
        return nullcontext()
    slots = torch.arange(batch, device=keys.device).repeat(len(keys))
    return keyed_dropout(keys.repeat_interleave(batch), len(slots), slots, several=True)
