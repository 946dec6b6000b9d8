"""fedbatch itself: whole rounds through Flower's messages, with aggregation, noise scale and server step.

Only the draw is replaced: clients take their examples in order, as the other systems do, and not in a random one.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from torch import Tensor

from benchmarks.systems.unmeasured import UNMEASURED, nothing_measured
from benchmarks.workload import Data, Workload, build_model, flat
from fedbatch.clients.draw import Draw
from fedbatch.clients.fedsgd import FedSGD
from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.config.compose import config_json
from fedbatch.config.schema import RunConfig, from_json
from fedbatch.controllers import Fixed
from fedbatch.controllers.phase import Phase
from fedbatch.data.holdout import HoldoutPartition
from fedbatch.data.partition import IndexPartition, Ints, Partition
from fedbatch.losses import CrossEntropy
from fedbatch.models.flat import FlatModel
from fedbatch.node import train as node
from fedbatch.runtime.local import LocalGrid
from fedbatch.server.rounds import Row, run_round
from fedbatch.server_app import new_server, start
from fedbatch.setup.device import memory_bytes
from fedbatch.setup.task import Task
from fedbatch.tasks import Classification
from fedbatch.wire.codec import decode, encode, reply
from fedbatch.wire.messages import Hosted, TrainPlan

NEVER = 10**9  # rounds: so that none is the last one, which is evaluated


class FedbatchSim:
    """fedbatch with one node in this process.

    Args:
        workload: what to run.
        data: the examples, and the clients unless ``partition`` says otherwise.
        executor: of the node.
        measured: False leaves out norms and noise scale, as `unmeasured` has it.
        halves: also measure the two halves of every batch.
        shuffle: draw batches as fedbatch does by itself; then other systems see other batches.
        partition: a population instead of the one in ``data``.

    Attributes:
        row: the last round's row of the record.
        work_seconds: what its client work took, without messages.
    """

    def __init__(
        self,
        workload: Workload,
        data: Data,
        executor: str = "fused",
        measured: bool = True,
        halves: bool = False,
        shuffle: bool = False,
        partition: Partition | None = None,
    ) -> None:
        self.row: Row = {}
        self.work_seconds = 0.0
        self.measured = measured
        partition = HoldoutPartition(partition or index_partition(data), 0.0)
        config = run_config(workload, len(partition), halves)
        config = replace(config, executor=executor if measured else UNMEASURED[executor])
        self.task = new_task(workload, data, partition, config, shuffle)
        self.server = new_server(self.task, LocalGrid(self._client_app(), 1, {}))
        self.state = start(self.server)

    def round(self, round_: int) -> None:
        """One whole round."""
        self.state = replace(self.state, round=round_)
        with deterministic(self.task.train_x.device), nullcontext() if self.measured else nothing_measured():
            self.state, self.row = run_round(self.server, self.state)

    def params(self) -> Tensor:
        """Parameters after the rounds so far."""
        return flat(self.server.optimizer.model.module)  # not the flat vector: channels last permutes it

    def _client_app(self) -> ClientApp:
        """As `fedbatch.client_app`, for a task that is at hand instead of one that a config describes."""
        app = ClientApp()

        @app.query()
        def hosted(message: Message, context: Context) -> Message:
            clients = np.arange(len(self.task.partition), dtype=np.int64)
            return Message(encode(Hosted(clients, self.task.partition.sizes(clients))), reply_to=message)

        @app.train()
        def train(message: Message, context: Context) -> Message:
            model = self.task.node_model
            lengths = {"params": model.params.numel(), "buffers": model.buffers.numel()}
            plan = decode(TrainPlan, message.content, lengths)
            begin = time.perf_counter()
            contribution = node.train(plan, self.task)
            self.work_seconds = time.perf_counter() - begin
            return Message(reply(contribution, message.content), reply_to=message)

        return app


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """PyTorch as fedbatch sets it by default, for this system only: deterministic on a CPU."""
    torch.utils.deterministic.fill_uninitialized_memory = False
    usual = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(device.type == "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(usual)


class WorkloadTask(Task):
    """A task whose server starts from the workload's parameters."""

    def new_model(self) -> FlatModel:
        """Another model with the parameters that the node's has at the start."""
        module = build_model(self.config.model["name"], self.config.seed)
        return FlatModel(module, self.train_x.device, channels_last=True)


@dataclass(frozen=True)
class InOrderFedSGD(FedSGD):
    """FedSGD on each client's first examples."""

    def draw(self, partition: Partition, clients: Ints, batch_sizes: Ints, seed: int, round_: int) -> Draw:
        """The first ``batch_sizes[k]`` examples."""
        return in_order(partition, clients, batch_sizes, steps=1)


@dataclass(frozen=True)
class InOrderLocalSGD(LocalSGD):
    """Local SGD over each client's examples in order."""

    def draw(self, partition: Partition, clients: Ints, batch_sizes: Ints, seed: int, round_: int) -> Draw:
        """One epoch; all clients have equally many whole batches."""
        return in_order(partition, clients, batch_sizes, steps=int(partition.sizes(clients[:1])[0] // batch_sizes[0]))


def in_order(partition: Partition, clients: Ints, batch_sizes: Ints, steps: int) -> Draw:
    """``steps`` batches of each client's examples from the first one on; batch sizes are all the same."""
    slots = np.arange(steps * int(batch_sizes[0]))
    positions = partition.lookup(clients[:, None], slots).reshape(len(clients), steps, -1)
    return Draw(positions, np.repeat(batch_sizes[:, None], steps, axis=1))


def index_partition(data: Data) -> IndexPartition:
    """The clients of ``data``, as fedbatch holds them."""
    population, examples = data.clients.shape
    return IndexPartition(data.clients.flatten().cpu().numpy(), np.arange(population + 1) * examples)


def run_config(workload: Workload, population: int, halves: bool) -> RunConfig:
    """The defaults of fedbatch, for one endless phase of plain SGD on the server."""
    lr = workload.learning_rate if workload.work == "fedsgd" else 1.0
    overrides = f"population={population} cohort_size={workload.cohort} client_batch_size={workload.batch_size} "
    overrides += f"controller=fixed server_optimizer.lr={lr} noise_scale.halves={str(halves).lower()} "
    overrides += f"seed={workload.seed} rounds={NEVER} evaluate_every_rounds=0"
    return replace(from_json(config_json({"overrides": overrides})), model={"name": workload.model})


def new_task(workload: Workload, data: Data, partition: HoldoutPartition, config: RunConfig, shuffle: bool) -> Task:
    """What a config cannot name: the workload's own data, model and batches."""
    gradient, local = (FedSGD, LocalSGD) if shuffle else (InOrderFedSGD, InOrderLocalSGD)
    return WorkloadTask(
        config=config,
        train_x=data.x,
        train_y=data.y,
        test_x=data.x[:0],
        test_y=data.y[:0],
        partition=partition,
        controller=Fixed(Phase("only", workload.cohort, workload.batch_size)),
        loss=CrossEntropy(),
        works={},
        default_work=gradient() if workload.work == "fedsgd" else local(lr=workload.learning_rate),
        node_model=FlatModel(build_model(workload.model, workload.seed), data.x.device, channels_last=True),
        learning=Classification().fitted(np.zeros(1, np.int64), 10),
        memory_bytes=memory_bytes(config, data.x.device),
    )
