"""The work every system does: the same clients, examples, batches and model in the same order.

Batches are the client's examples in order, without shuffling, because that is what ``pfl`` and Flower's
quickstart can be told to do; so all systems must arrive at the same parameters, and the tests hold them to
it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fedbatch.core.random import generator
from fedbatch.models import gpt, resnet18

Work = Literal["fedsgd", "local_sgd"]
ModelName = Literal["mlp", "cnn", "resnet", "gpt"]

SHAPES: dict[ModelName, tuple[int, ...]] = {"mlp": (1, 28, 28), "cnn": (1, 28, 28), "resnet": (3, 32, 32), "gpt": (80,)}
WORDS = 90
LEARNING_RATE = {"fedsgd": 0.1, "local_sgd": 0.05}  # of the server and of the clients respectively


@dataclass(frozen=True)
class Data:
    """Examples shared by all clients, and which of them each client holds.

    Attributes:
        x: float32 ``(examples, channels, height, width)``, or int64 ``(examples, tokens)``.
        y: int64 ``(examples,)``.
        clients: int64 ``(population, examples_per_client)``, positions in ``x``.
    """

    x: Tensor
    y: Tensor
    clients: Tensor


@dataclass(frozen=True)
class Workload:
    """One kind of federated round.

    Attributes:
        work: ``fedsgd``: one gradient a client on its first ``batch_size`` examples, and the server steps
            along their mean; ``local_sgd``: one epoch of batches of ``batch_size`` a client, and the server
            takes the mean change.
        model: name for `build_model`.
        cohort: clients in a round.
        batch_size: examples in one gradient of a client.
        seed: of the initial parameters and the cohorts.
    """

    work: Work
    model: ModelName
    cohort: int
    batch_size: int = 10
    seed: int = 0

    @property
    def is_convolutional(self) -> bool:
        """Whether it has convolutions, which like their channels last and small microbatches on a CPU."""
        return self.model in ("cnn", "resnet")

    @property
    def learning_rate(self) -> float:
        """The one learning rate the work has."""
        return LEARNING_RATE[self.work]

    def clients(self, round_: int, population: int) -> list[int]:
        """Clients of a round, ascending: those that fedbatch draws by itself."""
        draw = generator(self.seed, "cohort", round_)
        return sorted(draw.choice(population, size=self.cohort, replace=False, shuffle=False).tolist())

    def batches(self, data: Data, round_: int) -> Tensor:
        """Positions in ``data.x`` of a round's examples, ``(cohort, steps, batch_size)``."""
        held = data.clients[self.clients(round_, len(data.clients))]
        if self.work == "fedsgd":
            return held[:, None, : self.batch_size]
        return held.reshape(len(held), -1, self.batch_size)


def random_data(
    population: int = 1000, examples: int = 50, seed: int = 0, device: str = "cpu", model: ModelName = "mlp"
) -> Data:
    """Noise in the shape of Fashion-MNIST, CIFAR-10 or text; as good as the real thing for measuring time."""
    generator = torch.Generator().manual_seed(seed)
    total = population * examples
    if model == "gpt":
        x = torch.randint(WORDS, (total, *SHAPES[model]), generator=generator)
    else:
        x = torch.randn(total, *SHAPES[model], generator=generator)
    y = torch.randint(10, (total,), generator=generator)
    clients = torch.randperm(total, generator=generator).reshape(population, examples)
    return Data(x.to(device), y.to(device), clients.to(device))


def build_model(name: ModelName, seed: int = 0) -> nn.Module:
    """A model with parameters drawn from ``seed``; leaves the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "mlp":
            return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))
        if name == "resnet":
            return resnet18(SHAPES[name], 10, width=16, norm="group", groups=8)
        if name == "gpt":
            return nn.Sequential(gpt(SHAPES[name], WORDS, layers=5, width=128, heads=4, tie_weights=False), LastToken())
        return nn.Sequential(
            nn.Conv2d(1, 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(9216, 128),
            nn.ReLU(),
            nn.Linear(128, 10),
        )


class LastToken(nn.Module):
    """Logits of the last place of a sequence, so that an example has one label in every system."""

    def forward(self, logits: Tensor) -> Tensor:
        """Logits ``(n, words)`` of ``(n, tokens, words)``."""
        return logits[:, -1]


def flat(model: nn.Module) -> Tensor:
    """Copy of all parameters in one vector."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
