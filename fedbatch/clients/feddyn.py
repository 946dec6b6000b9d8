"""FedDyn: each client's loss gets a linear term that moves its minimum to the global one (Acar et al. 2021, alg. 1)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.clients.work import Finished, Lengths, Moment, Vectors


@dataclass(frozen=True)
class FedDyn(LocalSGD):
    """Steps of SGD on ``f_k(w) - <g_k, w> + alpha/2 |w - w_global|^2``, where g_k stands for the gradient at the end.

    After a round ``g_k <- g_k - alpha (w - w_global)``. The server keeps h, ``h <- h - alpha s (mean change)`` with s
    the cohort's share of all clients, and its parameters are the cohort's mean minus ``h / alpha``. So it takes
    ``server_optimizer=sgd`` with a rate of 1, and with ``weighting=uniform`` it is the published algorithm.

    Attributes:
        alpha: weight of the quadratic term, > 0.
    """

    alpha: float = 0.1

    is_plain_sgd = False
    own: ClassVar[Lengths] = {"gradient": "params"}
    shared: ClassVar[Lengths] = {"h": "params"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha <= 0 or self.proximal:
            raise ValueError("client_work: alpha must be > 0, and proximal 0: alpha is its weight")

    def start(self, params: Tensor, shared: Vectors, own: Vectors) -> tuple[Tensor, Vectors]:
        """From the global parameters."""
        return params, {"gradient": own["gradient"]}

    def step(
        self, params: Tensor, point: Tensor, gradient: Tensor, carry: Vectors, now: Moment
    ) -> tuple[Tensor, Vectors]:
        """``w - lr (g - g_k + alpha (w - w_global))``."""
        return point - self.lr * (gradient - carry["gradient"] + self.alpha * (point - params)), carry

    def finish(self, params: Tensor, point: Tensor, carry: Vectors, steps: Tensor) -> Finished:
        """Start minus end, and g_k."""
        update = params - point
        return Finished(update, {}, {"gradient": carry["gradient"] + self.alpha * update})

    def aggregate(self, update: Tensor, extras: Vectors, shared: Vectors, share: float) -> tuple[Tensor, Vectors]:
        """The update to ``mean - h / alpha``, and the new h."""
        h = shared["h"] + self.alpha * share * update
        return update + h / self.alpha, {"h": h}
