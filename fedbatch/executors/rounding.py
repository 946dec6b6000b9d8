"""Lengths of gradients that are sums over positions, such that rounding cannot carry a clipped one past its norm.

Positions that nearly cancel leave a sum that is short against its terms. Taken in float32 its length may be off by any
factor, and the sum that is added up has a rounding error that its true length does not show.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedbatch.clients.parts import Parts

TRUSTED = 1e-4
"""Largest share of a length that rounding may be without being counted."""


def pairwise(a: Tensor, g: Tensor, parts: int) -> Tensor:
    """Inner products (K, S, S) of gradients ``sum_i g_i a_i^T``, from positions (K, S m, in) and (K, S m, out)."""
    pairs = (a @ a.mT) * (g @ g.mT)
    members = a.shape[1] // parts
    return pairs.view(-1, parts, members, parts, members).sum(dim=(2, 4))


def bounded_square(a: Tensor, g: Tensor) -> Tensor:
    """Upper bound (K, 1, 1) on the squared length of ``sum_i g_i a_i^T``, summed in the precision of ``a``.

    In float64, so that long positions that nearly cancel leave their true sum. Where even the rounding of the sum that
    will be added up may be longer than `TRUSTED` of it, that rounding counts too.
    """
    unit = torch.finfo(a.dtype).eps / 2
    a, g = a.double(), g.double()
    length = pairwise(a, g, 1).clamp(min=0).sqrt()
    terms = (a.norm(dim=-1) * g.norm(dim=-1)).sum(dim=-1)[:, None, None]
    rounding = (4 + a.shape[1] ** 0.5) * unit * terms
    return torch.where(rounding > TRUSTED * length, length + rounding, length).square()


def may_round(layer: nn.Conv2d, x: Tensor, g: Tensor, parts: Parts, squares: Tensor) -> list[bool]:
    """Of each client (K,), whether summing its gradient in a batch may round by more than `TRUSTED` of its length."""
    ones = x.new_ones(1, 1, *layer.kernel_size)
    padding = layer.padding if isinstance(layer.padding, str) else list(layer.padding)
    patches = F.conv2d(x.square().sum(dim=1, keepdim=True), ones, None, layer.stride, padding, layer.dilation)
    terms = parts.sums((patches.clamp(min=0).sqrt()[:, 0] * g.norm(dim=1)).sum(dim=(1, 2)))
    positions = parts.members * g.shape[2] * g.shape[3]
    rounding = (4 + positions**0.5) * torch.finfo(x.dtype).eps / 2 * terms.double()
    trusted: list[bool] = (rounding <= TRUSTED * squares.flatten().sqrt()).tolist()
    return [not one for one in trusted]
