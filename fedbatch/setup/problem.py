"""What a run trains and on what, ready to use at both ends."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedbatch.active.learning import ActiveLearning
from fedbatch.aggregation.robust import Aggregator
from fedbatch.clients.draw import Draw
from fedbatch.clients.job import ClientWork, Job
from fedbatch.clients.outbox import Outbox
from fedbatch.clients.own import OwnVectors
from fedbatch.compression import Compression
from fedbatch.config.schema import RunConfig
from fedbatch.controllers.phase import Phase
from fedbatch.core.errors import ConfigError
from fedbatch.core.layout import Layout
from fedbatch.core.random import Ints, bits, key
from fedbatch.core.scores import Scoring, checked
from fedbatch.core.transfer import to_device
from fedbatch.data.holdout import HoldoutPartition, spread_evenly
from fedbatch.data.mapped import Inputs, of_draw
from fedbatch.executors.choose import Executors
from fedbatch.losses.examples import NO_LABEL
from fedbatch.metrics.evaluate import ExampleSums
from fedbatch.metrics.report import Calibration
from fedbatch.metrics.scaling import Scaling
from fedbatch.models.dropout import own_generators
from fedbatch.models.flat import FlatModel, Loss
from fedbatch.models.frozen import digest
from fedbatch.privacy.data_digest import DataDigests
from fedbatch.privacy.plan import PrivacyPlan
from fedbatch.setup.augment import Augment, augmented
from fedbatch.setup.learning import Target, scoring_of, target_of
from fedbatch.setup.model import new_model
from fedbatch.tasks.protocol import Floats, LearningTask
from fedbatch.wire.messages import Contribution


@dataclass(frozen=True, eq=False)
class Task:
    """What a run trains and on what.

    Attributes:
        config: the run's config.
        train_x, train_y: training set on the device, or inputs in their file; clients are index arrays into it.
        test_x, test_y: held-out test split of the server.
        partition: which examples are whose.
        controller: the phase controller.
        loss: loss function.
        works: client work of each phase that overrides the run's own.
        default_work: client work of the run.
        node_model: scratch model of the nodes in this process.
        learning: what labels and scores are.
        layout: what lies where in an input that is several arrays; None where it is one.
        meaning: what the numbers of data and model stand for, by name; see `fedbatch.data.meaning`.
        aggregator: of single updates; None adds weighted sums up.
        compression: of clients' updates on their way to the server; None without.
        privacy: the run's mechanism, ready to use; None without privacy.
        calibration: scores of calibration for the record; None without.
        temperature: how a temperature is found after training; None without.
        active: how the run gets its labels; None where all are there.
        augment: what clients change at random in their examples; None without.
        executors: what runs the clients' work on this node.
        data_digests: of clients' examples, for their draws under privacy.
        memory_bytes: what clients that are computed at once may take; None on a CPU, whose caches decide.
    """

    config: RunConfig
    train_x: Inputs
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    partition: HoldoutPartition
    controller: Any
    loss: Loss
    works: dict[str, ClientWork]
    default_work: ClientWork
    node_model: FlatModel
    learning: LearningTask
    layout: Layout | None = None
    meaning: Mapping[str, str] = field(default_factory=dict)
    aggregator: Aggregator | None = None
    compression: Compression | None = None
    privacy: PrivacyPlan | None = None
    calibration: Calibration | None = None
    temperature: Scaling | None = None
    active: ActiveLearning | None = None
    augment: Augment | None = None
    executors: Executors = field(default_factory=Executors)
    data_digests: DataDigests = field(default_factory=DataDigests)
    memory_bytes: float | None = None

    def phase(self, name: str) -> Phase:
        """A phase by its name."""
        return next(phase for phase in self.controller.phases if phase.name == name)

    def work(self, phase: str) -> ClientWork:
        """Client work of a phase."""
        return self.works.get(phase, self.default_work)

    @property
    def num_classes(self) -> int:
        """Classes of the labels, of a task that has them."""
        return self.learning.outputs

    @property
    def target(self) -> Target:
        """What may end the run."""
        return target_of(self.config, self.learning)

    @property
    def scoring(self) -> Scoring:
        """What the run says of its scores."""
        return scoring_of(self.config, self.learning, self.loss)

    @cached_property
    def frozen(self) -> str:
        """Digest of what the model holds and nobody sends, which must be the same on every machine."""
        return digest(self.node_model)

    @cached_property
    def labels_per_example(self) -> float:
        """1, or the mean number of tokens of a sequence that have a label.

        Of a private run only where all sequences have as many, for their lengths are not covered by the guarantee.
        """
        is_text = self.learning.rule.has_positions and not self.train_x.is_floating_point()
        if not is_text or self.train_y.dim() != 2:
            return 1
        counts = (self.train_y != NO_LABEL).sum(dim=1)
        vary = bool(counts.min() < counts.max())
        return 1 if vary and self.privacy is not None else float(counts.double().mean())

    def of_each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What is added up of each example for the task's scores, (n, S), taken at this end's own constants."""
        return self.learning.sums(outputs, targets, torch.from_numpy(self.learning.at).to(targets.device))

    def scores(self, sums: ExampleSums, prefix: str) -> dict[str, float]:
        """The columns of a split, its loss first.

        Raises:
            RunFailedError: a score outside its range.
        """
        found = self.columns(np.array(sums.count, np.float64), np.array(sums.sums), prefix)
        return {f"{prefix}loss": sums.loss} | {name: float(value) for name, value in found.items()}

    def columns(self, counts: Floats, sums: Floats, prefix: str) -> dict[str, Floats]:
        """The task's scores (...) under names of columns, from counts (...) and sums (..., S)."""
        learning = self.learning
        return checked(learning.scores, learning.columns(counts, sums, learning.at), prefix)

    def training_set_sample(self) -> tuple[Tensor, Tensor]:
        """The examples that are evaluated of those that clients train on: always the same, spread evenly over them."""
        return self.examples(spread_evenly(self.partition, self.config.training_set_examples))

    def examples(self, positions: Ints) -> tuple[Tensor, Tensor]:
        """Inputs (n, ...) and labels (n, ...) at positions (n,) in the training set."""
        index = to_device(positions, self.train_y.device)
        return self.train_x[index], self.train_y[index]

    def held_out(self, client: int) -> np.ndarray:
        """Positions of a client's own held-out examples."""
        return self.partition.held_out(client)

    def new_job(self, work: ClientWork, clients: Ints, batch_sizes: Ints, round_: int, params: Tensor) -> Job:
        """The job of ``clients`` (K,) in a round, each with a batch of ``batch_sizes`` (K,) examples, at ``params``."""
        draw = work.draw(self.partition, clients, batch_sizes, self.config.seed, self.config.draw_round(round_))
        made = self.job_of(work, clients, draw, self.weights(draw.num_examples), params)
        made = made if self.augment is None else augmented(made, self.augment, self.config.seed, round_)
        return replace(made, seeds=self.seeds(clients, round_), round=round_)

    def weights(self, num_examples: Ints) -> np.ndarray:
        """Weights (K,) of the updates of clients that used ``num_examples`` (K,)."""
        return np.ones(len(num_examples)) if self.config.weighting == "uniform" else num_examples.astype(np.float64)

    def job_of(self, work: ClientWork, clients: Ints, draw: Draw, weights: np.ndarray, params: Tensor) -> Job:
        """A job on this node's scratch model and data."""
        model = self.node_model
        x, y, positions = of_draw(self.train_x, self.train_y, draw.positions)
        return Job(
            model=model,
            loss=self.loss,
            x=x,
            y=y,
            work=work,
            clients=clients,
            draw=replace(draw, positions=positions),
            weights=weights,
            params=params,
            buffers=model.buffers.clone(),
            memory_bytes=self.memory_bytes,
        )

    def outbox(self, round_: int, residuals: OwnVectors | None = None) -> Outbox | None:
        """Where clients put their updates in a round, with what is left of earlier ones; None without compression."""
        return None if self.compression is None else Outbox(self.compression, self.config.seed, round_, residuals)

    def seeds(self, clients: Ints, *moment: int) -> Ints | None:
        """Keys (K,) of what random layers draw for clients, or examples, in a round and what else names the moment."""
        if not self.node_model.is_random:
            return None
        return (bits(key(self.config.seed, "layers", *moment), clients, np.zeros(1, np.int64)) >> np.uint64(2)).astype(
            np.int64
        )

    def execute(self, job: Job, executor: str, witness: Callable[[], Job]) -> Contribution:
        """The contribution of a job's clients; see `Executors.execute`.

        With ``executor=auto`` in the config, one that was chosen before is given up where it turns out wrong.
        """
        self.node_model.module.train()
        with own_generators(self.node_model.is_random):
            return self.executors.execute(job, executor, witness, automatic=self.config.executor == "auto")

    def new_model(self) -> FlatModel:
        """A freshly initialised model, the same for the same seed."""
        model = new_model(self.config, self.train_x[:2], self.learning.outputs, self.layout)
        if model.module is self.node_model.module:
            raise ConfigError(
                f"model: {self.config.model.get('_target_')} gives the same module twice, but server and nodes need "
                "one each; let it build a new one in every call"
            )
        model.set_changing(self.node_model.changing)
        model.writes_inputs = self.node_model.writes_inputs
        model.is_bfloat16 = self.node_model.is_bfloat16
        return model
