"""The fixed parts of a run's server side, and what a round's client work comes back as."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid
from torch import Tensor

from fedbatch.asynchronous import FedBuff
from fedbatch.availability import Availability
from fedbatch.averaging import Averaging
from fedbatch.batch.learning_rate import LearningRate
from fedbatch.batch.time_model import TimeModel
from fedbatch.controllers.phase import ControlState, Phase, phase_of
from fedbatch.core.random import Ints
from fedbatch.samplers import Sampler
from fedbatch.server.hosts import Hosts
from fedbatch.server.measure import Measured
from fedbatch.server.optimizer import ServerOptimizer
from fedbatch.setup.evaluation_sets import EvaluationSets
from fedbatch.setup.task import Task

Row = dict[str, Any]


@dataclass(frozen=True)
class Server:
    """The fixed parts of a run's server side; ``folder`` is the run folder.

    ``averaging`` is None without, ``availability`` where all clients are always there, ``sampler`` where the word
    ``sampling`` says who takes part, ``asynchronous`` where a round waits for its cohort. ``evaluation_sets`` are test
    sets beside the run's own, by name.
    """

    task: Task
    grid: Grid
    hosts: Hosts
    optimizer: ServerOptimizer
    learning_rate: LearningRate
    time_model: TimeModel
    folder: Path
    averaging: Averaging | None = None
    availability: Availability | None = None
    sampler: Sampler | None = None
    asynchronous: FedBuff | None = None
    evaluation_sets: EvaluationSets = field(default_factory=dict)

    def phase(self, control: ControlState) -> Phase:
        """The phase a controller's state stands for."""
        return phase_of(self.task.controller.phases, control)


@dataclass(frozen=True)
class Collected:
    """What a round's client work comes back as.

    Attributes:
        update: (d,) mean update, a pseudo-gradient.
        buffers: (m,) mean buffers.
        clients: int64 (K,) ids whose devices cost time.
        num_examples: int64 (K,) examples that each processed, or was expected to.
        measured: estimates of the noise scale.
        executor: what ran the clients, "" if none took part.
        columns: further columns of the record.
        changes: further fields of the state after this round.
        start_seconds: when the round began by the simulated clock; None for at once.
        end_seconds: when it ends by the same clock; None for when the slowest of ``clients`` is done.
        least_seconds: what it lasts at least, where the server has waited for a deadline.
        unused: clients that were sent a model and whose answers are not taken.
    """

    update: Tensor
    buffers: Tensor
    clients: Ints
    num_examples: Ints
    measured: Measured
    executor: str
    columns: Row
    changes: dict[str, Any] = field(default_factory=dict)
    start_seconds: float | None = None
    end_seconds: float | None = None
    least_seconds: float = 0.0
    unused: int = 0
