"""Plain and residual ReLU networks of any depth that train, and how wide they are at equal size."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

FAMILIES = ("plain", "residual")


class Step(nn.Module):
    """Adds ``W relu(norm(h))`` to its input, with W drawn small enough that a sum over all steps keeps its size."""

    def __init__(self, width: int, steps: int):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, width)
        nn.init.normal_(self.linear.weight, std=math.sqrt(2 / (width * steps)))
        nn.init.zeros_(self.linear.bias)

    def forward(self, h: Tensor) -> Tensor:
        """(batch, width) to the same."""
        return h + self.linear(self.norm(h).relu())


def network(input_shape: Sequence[int], num_classes: int, family: str, depth: int, width: int) -> nn.Module:
    """A classifier of ``depth`` hidden layers with layer norm (Ba et al. 2016) and the start of He et al. 2015.

    Args:
        input_shape: of an example.
        num_classes: of the labels.
        family: "plain", or "residual" where each hidden layer but the first is added to the identity. With one hidden
            layer they are the same.
        depth: hidden layers, at least 1.
        width: units of each.

    Raises:
        ValueError: another family.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)} (got {family!r})")
    inputs = math.prod(input_shape)
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(inputs, width)]
    if family == "residual":
        layers += [Step(width, depth - 1) for _ in range(depth - 1)]
    else:
        layers += [layer for _ in range(depth - 1) for layer in _hidden(width)]
    return nn.Sequential(*layers, nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, num_classes))


def _hidden(width: int) -> list[nn.Module]:
    linear = nn.Linear(width, width)
    nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
    nn.init.zeros_(linear.bias)
    return [nn.LayerNorm(width), nn.ReLU(), linear]


def size(inputs: int, classes: int, depth: int, width: int) -> int:
    """Parameters of `network`, of either family.

    >>> sum(p.numel() for p in network((64,), 10, "residual", 4, 20).parameters()) == size(64, 10, 4, 20)
    True
    """
    return (inputs + 1) * width + (depth - 1) * (width + 1) * width + 2 * depth * width + classes * (width + 1)


def width_of(inputs: int, classes: int, depth: int, parameters: int) -> int:
    """The width at which `size` is closest to ``parameters``.

    >>> width_of(64, 10, 1, 10_000), width_of(64, 10, 16, 10_000)
    (130, 22)
    """
    return min(range(2, 1024), key=lambda width: abs(size(inputs, classes, depth, width) - parameters))
