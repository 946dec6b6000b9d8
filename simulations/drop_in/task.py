"""Model, data and training of the app: nothing of fedbatch."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

TEST_EXAMPLES = 297


class Net(nn.Module):
    """One hidden layer for images of 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, ``(batch, 10)``."""
        return self.layers(x)


def load_data(partition_id: int, num_partitions: int) -> tuple[Tensor, Tensor]:
    """Training images ``(n, 64)`` and digits ``(n,)`` of one client."""
    x, y = _digits()
    return x[TEST_EXAMPLES + partition_id :: num_partitions], y[TEST_EXAMPLES + partition_id :: num_partitions]


def train(net: Net, x: Tensor, y: Tensor, *, epochs: int, batch_size: int, lr: float) -> float:
    """Train in place with SGD; the mean loss."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    losses = []
    for _ in range(epochs):
        for batch in torch.randperm(len(y)).split(batch_size):
            optimizer.zero_grad()
            loss = cross_entropy(net(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return sum(losses) / len(losses)


def test_accuracy(net: Net) -> float:
    """Share of the server's own images that are read correctly."""
    x, y = _digits()
    with torch.inference_mode():
        return float((net(x[:TEST_EXAMPLES]).argmax(1) == y[:TEST_EXAMPLES]).float().mean())


def _digits() -> tuple[Tensor, Tensor]:
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
