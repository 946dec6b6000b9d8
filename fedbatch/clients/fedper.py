"""FedPer: some layers, such as the head, stay at the client and are never averaged (Arivazhagan et al. 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.clients.work import Finished, Lengths, Vectors
from fedbatch.models.flat import FlatModel

MOST_NAMED = 12
"""Layers that a message names."""


@dataclass(frozen=True)
class FedPer(LocalSGD):
    """Local SGD on the whole model, in which each client has its own values of some parameters.

    A client's first values are the global ones, which never change: the update is 0 there.

    Attributes:
        personal: name, or names, of layers or parameters that stay, or patterns such as ``*.bias``; None = the last
            layer.
        places: int64 (n,), where these lie in the flat vector; found by `on_model`.
    """

    personal: str | Sequence[str] | None = None
    places: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64), repr=False, compare=False)

    is_plain_sgd = False

    def on_model(self, model: FlatModel) -> "FedPer":
        """The work for a model.

        Raises:
            ValueError: a name is nowhere in the model, or nothing is left to share.
        """
        given: Any = model.layer_names[-1] if self.personal is None else self.personal
        given = [given] if isinstance(given, str | int) else given
        if not isinstance(given, Sequence) or not all(isinstance(name, str | int) for name in given):
            raise ValueError(f"client_work.personal must be names of layers, e.g. [head], or null (got {given!r})")
        wanted = map(str, given)  # a number is the name of a layer, too
        stays = torch.zeros(len(model.params), dtype=torch.bool)
        ends = torch.tensor([p.numel() for p in model.trainable]).cumsum(dim=0).tolist()
        for pattern in wanted:
            found = [i for i, name in enumerate(model.names) if is_named(name, pattern)]
            if not found:
                some = ", ".join(model.layer_names[-MOST_NAMED:])
                raise ValueError(
                    f"client_work.personal: no parameter of the model is named {pattern}; its last layers are {some}"
                )
            for i in found:
                stays[ends[i] - model.trainable[i].numel() : ends[i]] = True
        if stays.all():
            raise ValueError("client_work.personal: all parameters stay, and nothing is left to train together")
        return replace(self, places=stays.nonzero()[:, 0])

    @property
    def own(self) -> Lengths:
        """The values that stay, and whether the client has any yet."""
        return {"personal": len(self.places), "begun": 1}

    def start(self, params: Tensor, shared: Vectors, own: Vectors) -> tuple[Tensor, Vectors]:
        """From the global parameters with the client's own."""
        return self.own_params(params, own), {}

    def finish(self, params: Tensor, point: Tensor, carry: Vectors, steps: Tensor) -> Finished:
        """Start minus end of what is shared, and the client's own."""
        places = self.places.to(point.device)
        kept = {"personal": point[..., places], "begun": torch.ones_like(point[..., :1])}
        return Finished((params - point).index_fill(-1, places, 0.0), {}, kept)

    def own_params(self, params: Tensor, own: Vectors) -> Tensor:
        """The parameters (d,) or (K, d) that clients use themselves."""
        places = self.places.to(params.device)
        values = torch.where(own["begun"] > 0, own["personal"], params[..., places])
        return params.clone().index_copy_(-1, places, values)


def is_named(name: str, pattern: str) -> bool:
    """Whether a parameter is the one of that name, in the layer of that name, or fits the pattern.

    >>> is_named("head.weight", "head"), is_named("header.weight", "head"), is_named("a.bias", "*.bias")
    (True, False, True)
    """
    return name == pattern or name.startswith(f"{pattern}.") or fnmatchcase(name, pattern)
