"""Statistics of predictions that add up over batches, clients and nodes; everything else is computed from their sums.

Each is a function ``(logits, labels, at) -> sums`` of float64 logits (n, classes), labels (n,) and whatever it is to be
taken at, (m,). Of no predictions they are zeros, of the same shape.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fedbatch.losses.examples import by_example
from fedbatch.losses.soft_ece import centres, membership
from fedbatch.metrics.bins import BinSums

Statistic = Callable[[Tensor, Tensor, Tensor], Tensor]
SOFT_TEMPERATURE = 0.01
"""Of the membership in soft bins, as in the default `fedbatch.losses.SBECE`."""


def scores(logits: Tensor, labels: Tensor, at: Tensor) -> Tensor:
    """Count, sum of -ln p, sum of Brier scores, count times the ECE of these predictions alone; ``at`` edges (M + 1,).

    The last one does not tell the error of the whole: added over clients and divided by the count it is the mean of
    clients' errors, an upper bound.
    """
    probs = logits.softmax(dim=1)
    nll = -logits.log_softmax(dim=1).gather(1, labels.unsqueeze(1)).sum()
    brier = (probs - torch.nn.functional.one_hot(labels, logits.shape[1])).square().sum()
    count = torch.full_like(nll, len(labels))
    error = BinSums.of(probs, labels, at).errors("l1") if len(labels) else count
    return torch.stack([count, nll, brier, count * error])


def centred_right(logits: Tensor, labels: Tensor) -> Tensor:
    """1/2 for each example (n,) whose most probable class is the label, -1/2 for others; of a sequence, the mean.

    Centred, because that halves what one example can change.
    """
    right = (logits.argmax(dim=-1) == labels).to(logits) - 0.5
    return by_example(right, labels, "none")


def bins(logits: Tensor, labels: Tensor, at: Tensor) -> Tensor:
    """`BinSums` of the most probable classes, as a vector (3 M,); ``at`` edges (M + 1,)."""
    return BinSums.of(logits.softmax(dim=1), labels, at).vector()


def class_bins(logits: Tensor, labels: Tensor, at: Tensor) -> Tensor:
    """`BinSums` of every class's own probability, (classes * 3 M,); ``at`` edges (M + 1,)."""
    probs = logits.softmax(dim=1)
    return torch.cat([BinSums.of_events(p, labels == k, at).vector() for k, p in enumerate(probs.T)])


def soft_bins(logits: Tensor, labels: Tensor, at: Tensor) -> Tensor:
    """`BinSums` of soft bins at inverse temperatures, (len(at) * 3 M,), M = 15 (Karandikar et al. 2021, eq. 11)."""
    return torch.cat([_soft_bins(scale * logits, labels) for scale in at])


def _soft_bins(logits: Tensor, labels: Tensor) -> Tensor:
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    member = membership(confidence, centres(0.0, 15, confidence), SOFT_TEMPERATURE)
    return torch.cat([member.sum(dim=0), confidence @ member, (predicted == labels).to(member) @ member])


def counts_up_to(logits: Tensor, labels: Tensor, at: Tensor) -> Tensor:
    """How many predictions have a confidence of at most each of ``at``, (m,)."""
    ranked = logits.softmax(dim=1).amax(dim=1).clamp(max=1).sort().values
    return torch.searchsorted(ranked, at, right=True).double()


def scaled_nll(logits: Tensor, labels: Tensor, at: Tensor) -> Tensor:
    """Sum of -ln p with logits times ``at`` (1,), its first and its second derivative in ``at``, (3,).

    With z the logits these are ``log sum_k e^(a z_k) - a z_y``, ``E z - z_y`` and ``Var z`` under the prediction: never
    negative curvature, so the minimum is one root of the slope.
    """
    probs = (at * logits).softmax(dim=1)
    told = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    mean = (probs * logits).sum(dim=1)
    variance = (probs * (logits - mean.unsqueeze(1)).square()).sum()
    value = (at * logits).logsumexp(dim=1).sum() - at[0] * told.sum()
    return torch.stack([value, (mean - told).sum(), variance])


def nll_derivatives(logits: Tensor, labels: Tensor, owners: Tensor, inverse: Tensor) -> Tensor:
    """Slope and curvature (2, P) of each client's -ln p in its own inverse temperature, as in `scaled_nll`.

    ``logits`` (n, classes), ``labels`` (n,) of all clients, ``owners`` int64 (n,) whose they are, ``inverse`` (P,).
    """
    probs = (inverse[owners, None] * logits).softmax(dim=1)
    told = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    mean = (probs * logits).sum(dim=1)
    variance = (probs * (logits - mean.unsqueeze(1)).square()).sum(dim=1)
    return logits.new_zeros(2, len(inverse)).index_add_(1, owners, torch.stack([mean - told, variance]))


STATISTICS: dict[str, Statistic] = {
    f.__name__: f for f in (scores, bins, class_bins, soft_bins, counts_up_to, scaled_nll)
}
"""What a node can be asked for, by name."""
