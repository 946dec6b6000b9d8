"""What the clients of a node send in the place of their updates, where these are compressed."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedbatch.clients.own import OwnVectors
from fedbatch.compression import Compression
from fedbatch.compression.chain import NotFiniteError, client_key
from fedbatch.core.random import Ints


@dataclass
class Outbox:
    """The compressed updates of a node's clients in one round.

    What is put twice, as a job may run twice, is the same both times.

    Attributes:
        compression: of the run.
        seed: of the run.
        round: index of the round.
        residuals: what compression has taken from each client before, (d,), where that is fed back.
        payloads: by client, the bytes that stand for its update.
        sq_errors: by client, ``|decoded - encoded|^2``.
        sent_sq_norms: by client, ``|decoded|^2``.
    """

    compression: Compression
    seed: int
    round: int
    residuals: OwnVectors | None = None
    payloads: dict[int, Tensor] = field(default_factory=dict)
    sq_errors: dict[int, float] = field(default_factory=dict)
    sent_sq_norms: dict[int, float] = field(default_factory=dict)

    def put(self, clients: Ints, updates: Tensor) -> Tensor:
        """Take the updates (K, d) of clients (K,); whether each (K,) can be sent, as what is not finite cannot."""
        if self.residuals is not None:
            updates = updates + self.residuals.read(clients).to(updates)
        finite = updates.isfinite().all(dim=1).tolist()
        sent = [
            good and self._put(client, clients[[row]], updates[row])
            for row, (client, good) in enumerate(zip(clients.tolist(), finite, strict=True))
        ]
        return torch.tensor(sent, dtype=torch.bool, device=updates.device)

    def _put(self, client: int, alone: Ints, vector: Tensor) -> bool:
        key = client_key(self.seed, self.round, client)
        payload = self.compression.encode(vector, key)
        try:
            decoded = self.compression.decode(payload, len(vector), vector.dtype, key)
        except NotFiniteError:
            return False
        left = vector - decoded
        if self.residuals is not None:
            self.residuals.write(alone, left[None])
        self.payloads[client] = payload.cpu()
        self.sq_errors[client] = float(left.double().square().sum())
        self.sent_sq_norms[client] = float(decoded.double().square().sum())
        return True
