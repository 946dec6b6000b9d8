"""The clients at work: what each began with, and when its update is there. A value that goes into checkpoints."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

Model = dict[str, Tensor]


def _none(dtype: torch.dtype) -> Tensor:
    return torch.zeros(0, dtype=dtype)


@dataclass(frozen=True)
class UnderWay:
    """Clients at work, in the order in which their updates will be there; of two at the same moment the lower id first.

    Attributes:
        clients: int64 (C,) distinct ids.
        versions: int64 (C,) steps that the server had done when each began.
        due: float64 (C,) simulated seconds at which its update is there.
        models: of each version that somebody works on, ``params`` (d,) and ``buffers`` (m,).
        phases: of each such version, the name of its phase.
    """

    clients: Tensor = field(default_factory=lambda: _none(torch.int64))
    versions: Tensor = field(default_factory=lambda: _none(torch.int64))
    due: Tensor = field(default_factory=lambda: _none(torch.float64))
    models: dict[int, Model] = field(default_factory=dict)
    phases: dict[int, str] = field(default_factory=dict)

    def begun(self, clients: Tensor, version: int, due: Tensor, model: Model, phase: str) -> "UnderWay":
        """With further clients (n,) who begin with the model of ``version``, and whose updates are there at ``due``."""
        clients, due = torch.cat([self.clients, clients]), torch.cat([self.due, due])
        versions = torch.cat([self.versions, torch.full((len(clients) - len(self.clients),), version)])
        by_id = torch.argsort(clients)
        order = by_id[torch.argsort(due[by_id], stable=True)]
        models, phases = self.models | {version: model}, self.phases | {version: phase}
        return UnderWay(clients[order], versions[order], due[order], models, phases)

    def select(self, which: slice | Tensor) -> "UnderWay":
        """Some of the clients, by places or a mask, with the models that they work on."""
        versions = self.versions[which]
        needed = set(versions.tolist())
        return UnderWay(
            self.clients[which],
            versions,
            self.due[which],
            {version: model for version, model in self.models.items() if version in needed},
            {version: phase for version, phase in self.phases.items() if version in needed},
        )

    def to(self, device: torch.device) -> "UnderWay":
        """With the models on a device."""
        moved = {v: {name: values.to(device) for name, values in model.items()} for v, model in self.models.items()}
        return replace(self, models=moved)

    def kept(self, version: int) -> "UnderWay":
        """With a copy of a model that is about to be stepped in place, if anybody works on it."""
        if version not in self.models:
            return self
        copy = {name: values.clone() for name, values in self.models[version].items()}
        return replace(self, models=self.models | {version: copy})
