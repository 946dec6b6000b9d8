"""`pfl` 0.6 (Apple's pfl-research) on the same work, through its public interface as its tutorials use it.

FedAvg is pfl's own algorithm. FedSGD is FedAvg with one local step at rate 1, whose change is minus the
gradient, and a central SGD at the server's rate. Importing pfl sets the process's multiprocessing start
method to forkserver.
"""

import asyncio
import os

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Weighted
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.workload import Data, Workload, build_model, flat

# pfl asks for the current event loop, which Python no longer makes by itself.
asyncio.set_event_loop(asyncio.new_event_loop())


class PflSimulation:
    """One resident model that visits the cohort's users in turn."""

    def __init__(self, workload: Workload, data: Data) -> None:
        # Else pfl takes a GPU whenever it sees one.
        os.environ.setdefault("PFL_PYTORCH_DEVICE", str(data.x.device))
        self.workload, self.data, self.rounds_done = workload, data, 0
        self.cohort: list[int] = []
        self.module = _WithLoss(build_model(workload.model, workload.seed))
        fedsgd = workload.work == "fedsgd"
        optimizer = torch.optim.SGD(self.module.parameters(), lr=workload.learning_rate if fedsgd else 1.0)
        self.model = PyTorchModel(self.module, torch.optim.SGD, optimizer)
        users = FederatedDataset(self._user, lambda: self.cohort.pop(0))
        self.backend = SimulatedBackend(users, users, postprocessors=[WeightByDatapoints()])
        self.algorithm = FederatedAveraging()
        self.training = NNTrainHyperParams(
            local_batch_size=workload.batch_size,
            local_num_epochs=None if fedsgd else 1,
            local_num_steps=1 if fedsgd else None,
            local_learning_rate=1.0 if fedsgd else workload.learning_rate,
        )

    def round(self, round_: int) -> None:
        """One central iteration: `run` goes on from the last one it finished."""
        self.cohort = self.workload.clients(round_, len(self.data.clients))
        self.rounds_done += 1
        self.algorithm.run(
            NNAlgorithmParams(
                central_num_iterations=self.rounds_done,
                evaluation_frequency=1_000_000,  # only the very first iteration evaluates
                train_cohort_size=self.workload.cohort,
                val_cohort_size=None,
            ),
            self.backend,
            self.model,
            self.training,
            NNEvalHyperParams(local_batch_size=None),
            send_metrics_to_platform=False,  # the platform prints them
        )

    def params(self) -> Tensor:
        """Parameters after the rounds so far."""
        return flat(self.module)

    def _user(self, client: int) -> PyTorchTensorDataset:
        held = self.data.clients[client]
        return PyTorchTensorDataset((self.data.x.index_select(0, held), self.data.y[held]))


class _WithLoss(nn.Module):
    """What pfl asks of a module: ``loss`` and ``metrics`` over a user's batch."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(self.net(x), y)

    @torch.no_grad()
    def metrics(self, x: Tensor, y: Tensor) -> dict[str, Weighted]:
        return {"loss": Weighted(cross_entropy(self.net(x), y, reduction="sum").item(), len(y))}
