"""Measures of noise from the mean updates of groups of clients, for any geometry of the server's step.

The cohort is dealt at random to R groups of equal size. Blocks S of n groups and the groups outside of S are
independent, so that for any map u from a gradient to a step

    A(n) = mean over blocks S of <mean outside of S, u(mean of S)>     has the expectation E<G, u(g_n)>
    Q(n) = mean over blocks S of |u(mean of S)|^2                      has the expectation E|u(g_n)|^2

and so has A(n) - c (A_1(n) - |G|^2), with A_1(n) that of u(g) = g and c = <g_n, u(g_n)> / |g_n|^2 nearly a constant;
g_n is the mean gradient of n groups. The noise scales of other norms: arXiv 2602.03001.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fedbatch.batch.gain import GroupSums

Step = Callable[[Tensor], Tensor]


def group_sums(
    means: Tensor, size: float, step: Step, shaped: Callable[[Tensor], Sequence[Tensor]], layer_sizes: Sequence[int]
) -> GroupSums:
    """What the groups of one round say.

    Args:
        means: float64 (R, d) mean update of each group, R >= 4 a power of 2.
        size: batch of one group, in the unit of the noise scale.
        step: u, from a gradient (d,) to the optimizer's step (d,), of any length.
        shaped: from vectors (R, d) to those of each parameter, (R, *shape).
        layer_sizes: numbers of parameters of the layers; none for no layers.
    """
    along, squares, slopes = [], [], []
    count, total = len(means), means.sum(dim=0)
    n = 1
    while n < count:
        blocks = means.view(count // n, n, -1).sum(dim=1)
        products = torch.stack([_products(block / n, (total - block) / (count - n), step) for block in blocks])
        outer, plain, squared, inner, length = products.mean(dim=0).tolist()
        slope = inner / length if length else 0.0
        along.append(outer - slope * plain)
        squares.append(squared)
        slopes.append(slope)
        n *= 2
    layers = means.split(list(layer_sizes), dim=1) if layer_sizes else ()
    each = [value for layer in layers for value in _euclidean(layer, size)]
    norms = (*_euclidean(means, size), *_absolute(means, size), *_nuclear(shaped(means), size))
    return GroupSums(size, tuple(along), tuple(squares), tuple(slopes), norms, tuple(each))


def _products(inside: Tensor, outside: Tensor, step: Step) -> Tensor:
    """<outside, u>, <outside, inside>, |u|^2, <inside, u> and |inside|^2 for u the step of ``inside``."""
    moved = step(inside)
    return torch.stack([outside @ moved, outside @ inside, moved @ moved, inside @ moved, inside @ inside])


def _euclidean(means: Tensor, size: float) -> tuple[float, float]:
    """tr(Sigma) of one unit and |G|^2, without bias."""
    count, mean = len(means), means.mean(dim=0)
    trace = size * float((means - mean).square().sum()) / (count - 1)
    return trace, float(mean @ mean) - trace / (count * size)


def _absolute(means: Tensor, size: float) -> tuple[float, float]:
    """|sigma|_1^2, sigma the standard deviation of each coordinate of one unit, and |g|_1^2 of the mean."""
    deviations = means.std(dim=0, correction=1) * size**0.5
    return float(deviations.sum()) ** 2, float(means.mean(dim=0).abs().sum()) ** 2


def _nuclear(parameters: Sequence[Tensor], size: float) -> tuple[float, float]:
    """|C^(1/2)|^2 and |g|^2 in the nuclear norm, summed over matrices before they are squared.

    C = E[(g - G)(g - G)^T] over the shorter side of a matrix; a convolution is a matrix with a row for each filter.
    Tensors of one axis, which spectral optimizers leave to others, do not count.
    """
    noise = signal = 0.0
    for tensor in parameters:
        if tensor.dim() < 3:
            continue
        matrices = tensor.flatten(2)
        if matrices.shape[1] > matrices.shape[2]:
            matrices = matrices.transpose(1, 2)
        mean = matrices.mean(dim=0)
        centred = (matrices - mean).transpose(0, 1).flatten(1)
        covariance = centred @ centred.T * (size / (len(matrices) - 1))
        noise += float(torch.linalg.eigvalsh(covariance).clamp(min=0).sqrt().sum())
        signal += float(torch.linalg.eigvalsh(mean @ mean.T).clamp(min=0).sqrt().sum())
    return noise**2, signal**2
