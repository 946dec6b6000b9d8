"""Gradient diversity of networks at initialisation: B_S = mean |grad f_i|^2 / |mean grad f|^2 (Yin et al. 2017).

B_S = 1 + B_simple, so the estimator of the noise scale serves for both, with examples as clients; unlike the plug-in
ratio it is not held down by the number of probe examples. Inputs are Gaussian, targets those of an independent network
of the same law, the loss is half the squared error. Closed forms for linear networks are our own.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, vmap

from fedbatch.batch.noise_scale import estimate

PROBES = 4000


@dataclass(frozen=True)
class Family:
    """Networks of ``layers`` weight matrices and ``width`` hidden units, without biases.

    Attributes:
        kind: "linear", "tanh", "relu", or "residual" (linear steps added to the identity between first and last).
        inputs: d.
        width: K.
        layers: L, at least 2.
        scaled: weights of variance 1 / fan-in (2 / fan-in for relu); False: variance 1.
        teacher: targets from another such network; False: all zero.
        centred: the mean residual over the probes is taken off, as a fitted output bias would.
    """

    kind: str
    inputs: int
    width: int
    layers: int
    scaled: bool = True
    teacher: bool = True
    centred: bool = False

    def shapes(self) -> list[tuple[int, int]]:
        """(out, in) of each matrix."""
        inner = [(self.width, self.width)] * (self.layers - 2)
        return [(self.width, self.inputs), *inner, (1, self.width)]

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Weights of one network."""
        gain = 2.0 if self.kind == "relu" else 1.0
        weights = {}
        for i, (rows, columns) in enumerate(self.shapes()):
            std = math.sqrt(gain / columns) if self.scaled else 1.0
            weights[str(i)] = std * torch.randn(rows, columns, generator=generator)
        return weights

    def forward(self, weights: dict[str, Tensor], x: Tensor) -> Tensor:
        """Output (...,) for inputs (..., d)."""
        h = x
        for i in range(self.layers):
            step = h @ weights[str(i)].T
            h = h + step / self.layers if self.kind == "residual" and 0 < i < self.layers - 1 else step
            if i < self.layers - 1 and self.kind in ("tanh", "relu"):
                h = torch.tanh(h) if self.kind == "tanh" else torch.relu(h)
        return h.squeeze(-1)


def diversity(family: Family, seed: int, probes: int = PROBES) -> float:
    """B_S of one draw of weights, teacher and ``probes`` inputs; NaN where the mean gradient drowns in noise."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = family.draw(generator), family.draw(generator)
    x = torch.randn(probes, family.inputs, generator=generator)
    target = family.forward(teacher, x) if family.teacher else torch.zeros(probes)
    offset = (family.forward(student, x) - target).mean() if family.centred else torch.zeros(())

    def loss(weights: dict[str, Tensor], one: Tensor, wanted: Tensor) -> Tensor:
        return 0.5 * (family.forward(weights, one) - wanted - offset) ** 2

    sq_norms = torch.zeros(probes)
    gradients = vmap(grad(loss), in_dims=(None, 0, 0))
    sums = {name: torch.zeros_like(w) for name, w in student.items()}
    for start in range(0, probes, 500):
        part = slice(start, start + 500)
        for name, g in gradients(student, x[part], target[part]).items():
            sq_norms[part] += g.flatten(1).square().sum(1)
            sums[name] += g.sum(0)
    total = sum(float((s / probes).square().sum()) for s in sums.values())
    found = estimate(sq_norms.double().numpy(), torch.ones(probes).numpy(), total)
    return 1 + found.scale


def two_layer(width: int, inputs: int) -> float:
    """Closed form for a linear network K-d of unit-variance weights and zero targets.

    The ratio of the expectations over weights of numerator and denominator.

    >>> round(two_layer(10, 50), 1)
    17.1
    """
    return 2 * (width + 2) * (inputs + 2) / (2 * width + inputs + 3)


def deep(width: int, layers: int, teacher: bool) -> float:
    """Closed form for L layers of one width K and scaled weights as K grows: 2K / (L + 1), with a teacher 4K / (L + 3).

    >>> deep(64, 5, teacher=True)
    32.0
    """
    return 4 * width / (layers + 3) if teacher else 2 * width / (layers + 1)
