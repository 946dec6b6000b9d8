"""Calibration of probabilities: do predictions made with confidence c come true in a share c of cases?

All of it comes from sums that add up over clients to those of their pooled examples (`fedbatch.metrics.bins`). A mean
of clients' errors is no substitute: gaps of either sign cancel in the pool, so the mean (l1, weighted by examples) is
never below the error of the whole and can be far above it.
"""

from typing import Literal

import torch
from torch import Tensor

from fedbatch.metrics.bins import BinSums, Norm, check_shapes, mass_edges, width_edges

Binning = Literal["width", "mass"]


def calibration_error(
    probs: Tensor,
    labels: Tensor,
    *,
    bins: int = 15,
    norm: Norm = "l1",
    binning: Binning = "width",
    debias: bool = False,
) -> float:
    """Calibration error of the most probable classes, in [0, 1]; NaN without examples.

    Args:
        probs: (N, classes), rows adding up to 1.
        labels: (N,) integers.
        bins: number of bins.
        norm: "l1" (ECE), "l2" or "max", see `BinSums.error`.
        binning: bins of equal "width", or of equal "mass" (number of examples).
        debias: remove the bias of finite bins; only with "l2".

    Raises:
        ValueError: shapes, ``bins``, ``norm``, ``binning`` or ``debias`` that make no sense.

    >>> calibration_error(torch.tensor([[0.75, 0.25], [0.25, 0.75]]), torch.tensor([0, 0]), bins=10)
    0.25
    """
    if binning not in ("width", "mass"):
        raise ValueError(f"binning must be width or mass (got {binning})")
    if binning == "width":
        edges = width_edges(bins)
    else:
        check_shapes(probs, labels)
        ranked = probs.amax(dim=1).double().clamp(max=1).sort().values.cpu()
        edges = mass_edges(lambda at: torch.searchsorted(ranked, at, right=True), bins)
    return BinSums.of(probs, labels, edges).error(norm, debias)


def classwise_ece(probs: Tensor, labels: Tensor, *, bins: int = 15) -> float:
    """Mean over classes of the l1 error of their own probability in bins of equal width (Kull et al. 2019, sec. 2).

    ``probs`` (N, classes), ``labels`` (N,); in [0, 1], NaN without examples.
    """
    check_shapes(probs, labels)
    edges = width_edges(bins)
    errors = [BinSums.of_events(p, labels == k, edges).error("l1") for k, p in enumerate(probs.T)]
    return sum(errors) / len(errors)


def nll(probs: Tensor, labels: Tensor) -> float:
    """Mean of ``-ln p`` of the labels (N,) under ``probs`` (N, classes), in nats; infinite where a label has p = 0."""
    check_shapes(probs, labels)
    return float(-probs.double().gather(1, labels.unsqueeze(1)).log().mean())


def brier(probs: Tensor, labels: Tensor) -> float:
    """Mean of ``sum_k (p_k - [k is the label])^2`` over ``probs`` (N, classes) and ``labels`` (N,), in [0, 2]."""
    check_shapes(probs, labels)
    one_hot = torch.nn.functional.one_hot(labels, probs.shape[1])
    return float((probs.double() - one_hot).square().sum(dim=1).mean())
