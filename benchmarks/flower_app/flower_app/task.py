"""Model, data and training loop."""

from functools import cache

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    """784-32-10."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 32)
        self.fc2 = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the ten classes."""
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


@cache
def load_data(path: str) -> tuple[Tensor, Tensor]:
    """Images ``(clients, examples, 1, 28, 28)`` and labels ``(clients, examples)``, read once a process."""
    data = torch.load(path)
    return data["x"], data["y"]


def load_partition(path: str, partition: int, batch_size: int) -> DataLoader:
    """Batches of one client, in order."""
    x, y = load_data(path)
    return DataLoader(TensorDataset(x[partition], y[partition]), batch_size=batch_size)


def train(net: nn.Module, trainloader: DataLoader, epochs: int, learning_rate: float) -> float:
    """Train in place; the mean loss over batches."""
    optimizer = torch.optim.SGD(net.parameters(), lr=learning_rate)
    net.train()
    running_loss = 0.0
    for _ in range(epochs):
        for x, y in trainloader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
    return running_loss / (epochs * len(trainloader))
