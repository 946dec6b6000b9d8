"""SCAFFOLD: local steps corrected for the client's drift by control variates (Karimireddy et al. 2020, option II)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.clients.work import Finished, Lengths, Moment, Vectors


@dataclass(frozen=True)
class Scaffold(LocalSGD):
    """Steps ``w - lr (g + c - c_k)``, with c_k the client's mean gradient of its last round and c their mean over all.

    After K steps ``c_k <- c_k - c + (w_global - w) / (K lr)``, and the server adds the cohort's mean change of c_k,
    times the cohort's share of all clients, to c. Clients weigh as their updates do: with ``weighting=uniform`` it is
    the published algorithm.
    """

    is_plain_sgd = False
    extras: ClassVar[Lengths] = {"control": "params"}
    own: ClassVar[Lengths] = {"control": "params"}
    shared: ClassVar[Lengths] = {"control": "params"}

    def start(self, params: Tensor, shared: Vectors, own: Vectors) -> tuple[Tensor, Vectors]:
        """From the global parameters, with the correction ``c - c_k``."""
        return params, {"control": own["control"], "correction": shared["control"] - own["control"]}

    def step(
        self, params: Tensor, point: Tensor, gradient: Tensor, carry: Vectors, now: Moment
    ) -> tuple[Tensor, Vectors]:
        """A step of SGD along the corrected gradient."""
        return super().step(params, point, gradient + carry["correction"], carry, now)

    def finish(self, params: Tensor, point: Tensor, carry: Vectors, steps: Tensor) -> Finished:
        """Start minus end, the change of c_k, and c_k."""
        update = params - point
        control = update / (steps * self.lr) - carry["correction"]
        return Finished(update, {"control": control - carry["control"]}, {"control": control})

    def longest(self, updates: float, weight: float, steps: float, shared: Vectors) -> dict[str, float]:
        """The change of c_k is ``(w_global - w) / (K lr) - c``."""
        return {"control": updates / self.lr + weight * float(shared["control"].norm())}

    def aggregate(self, update: Tensor, extras: Vectors, shared: Vectors, share: float) -> tuple[Tensor, Vectors]:
        """The update as it is, and the new c."""
        return update, {"control": shared["control"] + share * extras["control"]}
