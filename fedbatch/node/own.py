"""What the clients of a node keep from round to round: files beside the run, one for each client and version.

A version is one more than the round that made it. The server names the valid one when it asks, see
`fedbatch.server.algorithm`. A node keeps that one, and those that a run which is resumed from one of its checkpoints
would name. It deletes all others when the client is asked again.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedbatch.clients.own import OwnVectors
from fedbatch.core.random import Ints
from fedbatch.wire.messages import TrainPlan


@dataclass(frozen=True)
class OwnFiles:
    """The files of a node's clients; a client is hosted by one node only, so nodes may share the ``folder``."""

    folder: Path

    def read(self, client: int, version: int, size: int) -> Tensor | None:
        """The vector (size,) of a version, or None where it is not there, or damaged."""
        try:
            values = np.load(self._path(client, version), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        plain = values.shape == (size,) and values.dtype in (np.float32, np.float64)
        return torch.from_numpy(values) if plain else None

    def write(self, client: int, version: int, values: Tensor) -> None:
        """Keep the vector of a version, whole or not at all."""
        path = self._path(client, version)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with open(partial, "wb") as file:
            np.save(file, values.numpy(), allow_pickle=False)
        os.replace(partial, path)

    def delete(self, client: int, version: int) -> None:
        """Let go of a version, if it is there."""
        self._path(client, version).unlink(missing_ok=True)

    def prune(self, client: int, valid: int, checkpoints: Ints) -> None:
        """Delete all versions but the ``valid`` one and those that were valid at ``checkpoints``, rounds done.

        What is left of earlier rounds was valid once, as all else is deleted here; what is later never was.
        """
        there = sorted(
            int(path.stem.removeprefix("round-")) for path in self._path(client, 0).parent.glob("round-*.npy")
        )
        known = [version for version in there if version <= valid]
        needed = {valid, *(max((v for v in known if v <= done), default=0) for done in checkpoints.tolist())}
        for version in set(there) - needed:
            self.delete(client, version)

    def _path(self, client: int, version: int) -> Path:
        return self.folder / str(client) / f"round-{version:08d}.npy"


def begun(files: OwnFiles, plan: TrainPlan, size: int) -> tuple[OwnVectors, set[int]]:
    """What the clients of a plan begin with, vectors (size,) each, and a set that fills with those who lost theirs.

    These begin with zeros. What clients end with is written as the version of the plan's round.
    """
    valid = dict(zip(plan.clients.tolist(), plan.versions.tolist(), strict=True))
    for client, version in valid.items():
        files.prune(client, version, plan.checkpoints)
    zeros = torch.zeros(size, dtype=plan.params.dtype)
    lost: set[int] = set()

    def one(client: int) -> Tensor:
        vector = files.read(client, valid[client], size) if valid[client] else zeros
        if vector is None:
            lost.add(client)
        return zeros if vector is None else vector

    def before(clients: Ints) -> Tensor:
        return torch.stack([one(client) for client in clients.tolist()])

    return OwnVectors(before, save=lambda client, vector: files.write(client, plan.round + 1, vector)), lost
