"""The server's half of compression: what nodes sent is checked, decoded one client after the other, and added up."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fedbatch.aggregation.sums import Sum, nobody
from fedbatch.compression import Compression
from fedbatch.compression.chain import client_key
from fedbatch.controllers.phase import Phase
from fedbatch.runtime.flower import num_bytes
from fedbatch.server.plausible import LARGEST, LEAST_LENGTH, ROUNDING
from fedbatch.server.server import Server
from fedbatch.server.state import ServerState
from fedbatch.wire.check import MessageError, require
from fedbatch.wire.codec import encode
from fedbatch.wire.messages import Contribution, TrainPlan

TINY = 1e-300  # nothing over nothing has no share


@dataclass
class Spread:
    """How independent errors of clients' compression are spread over coordinates.

    Errors e_k of the mean have ``E sum e_jk e_ji`` = 0 for two clients j and i, so that the energy that they add to it
    is known on average. How far it is from that in one round depends on whether they meet in the same coordinates.

    Attributes:
        variances: float64 (d,) sum over clients of what their errors, times their weights, have on average squared.
        squares: sum over clients and coordinates of the same, squared.
    """

    variances: Tensor
    squares: float = 0.0

    @classmethod
    def none(cls, like: Tensor) -> "Spread":
        """Of nobody, in as many coordinates as ``like`` (d,) has."""
        return cls(torch.zeros_like(like, dtype=torch.float64))

    def count(self, decoded: Tensor, weight: float, sq_error: float) -> None:
        """Count one client.

        The share |error|^2 / |decoded|^2 of what is decoded is taken for error in every coordinate: on average this is
        right for random places, and near for random rounding.
        """
        energies = decoded.double().square()
        share = min(sq_error / max(float(energies.sum()), TINY), 1.0)
        own = energies * (share * weight**2)
        self.variances += own
        self.squares += float(own.dot(own))

    def add(self, other: "Spread") -> None:
        """Count the clients of another one."""
        self.variances += other.variances
        self.squares += other.squares

    @property
    def overlap(self) -> float:
        """Sum over pairs of different clients, and over coordinates, of the products of their variances."""
        return max(float(self.variances.dot(self.variances)) - self.squares, 0.0)


def payload_bytes(server: Server, state: ServerState) -> int:
    """Bytes in which each client sends its update; 0 where updates are added up."""
    compression = server.task.compression
    return compression.num_bytes(len(state.params), state.params.dtype) if compression else 0


def opened(server: Server, spread: Spread, answer: Contribution, plan: TrainPlan) -> Contribution:
    """The answer with the sum of decoded updates in the place of their payload; as it is where none is compressed.

    Errors of a valid answer are counted in ``spread``.

    Raises:
        MessageError: a payload is nothing that the run's compression gives, or has another length than was told.
    """
    compression = server.task.compression
    if compression is None:
        return answer
    params, seed = plan.params, server.task.config.seed
    payloads = torch.from_numpy(answer.payload).to(params.device).view(len(answer.clients), plan.payload)
    total, own = Sum(params), Spread.none(params)
    for row, client in enumerate(answer.clients.tolist()):
        key = client_key(seed, plan.round, client)
        try:
            vector = compression.decode(payloads[row], len(params), params.dtype, key)
        except ValueError as error:
            raise MessageError(f"payload: {error}") from error
        _check_length(compression, answer, row, float(vector.double().square().sum()))
        total.add(vector, float(answer.weights[row]))
        own.count(vector, float(answer.weights[row]), float(answer.sq_errors[row]))
    spread.add(own)
    return replace(answer, update_sum=total.value(), payload=answer.payload[:0])


def _check_length(compression: Compression, answer: Contribution, row: int, squared: float) -> None:
    """What is decoded has the length that was told, and with the update and the error it makes a triangle.

    With error feedback, more than the update is encoded, so that nothing follows from its length.
    """
    told, error = float(answer.sent_sq_norms[row]), float(answer.sq_errors[row])
    require(max(squared, told, error) <= LARGEST, "payload is beyond what can be added up")
    close = math.isclose(math.sqrt(squared), math.sqrt(told), rel_tol=ROUNDING, abs_tol=LEAST_LENGTH)
    require(close, "payload has another length than sent_sq_norms")
    if compression.error_feedback:
        return
    sent, update = math.sqrt(told), math.sqrt(answer.sq_norms[row])
    slack = ROUNDING * (sent + update) + LEAST_LENGTH
    inside = abs(sent - update) - slack <= math.sqrt(error) <= sent + update + slack
    require(inside, "sq_errors are not those of an update and a payload of such lengths")


def message_bytes(server: Server, phase: Phase, state: ServerState, extras: int) -> int:
    """Bytes of the message in which a node with a single client answers, as it is written down for SuperNodes."""
    one, none = np.ones(1), np.zeros(0)
    halves = server.task.config.noise_scale.halves and server.task.work(phase.name).is_gradient
    empty = nobody(state.params[:0], state.buffers)
    answer = Contribution(
        update_sum=empty.mean_update,
        buffer_sum=empty.mean_buffers,
        unit_sum=empty.mean_update,
        clients=np.ones(1, np.int64),
        weights=one,
        num_examples=np.ones(1, np.int64),
        sq_norms=one,
        losses=one,
        half_dots=one if halves else none,
        half_sq_diffs=one if halves else none,
        excluded=np.zeros(0, np.int64),
        executor=state.executor(phase.name, server.task.config.executor),
        round=state.round,
        extra_sums=state.params.new_zeros(extras),
        sq_errors=one,
        sent_sq_norms=one,
    )
    return num_bytes(encode(answer)) + payload_bytes(server, state)
