"""FedNova: updates are divided by the steps that made them, so that many steps give no more say (Wang et al. 2020)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.clients.work import Finished, Lengths, Vectors


@dataclass(frozen=True)
class FedNova(LocalSGD):
    """Local SGD whose update is ``(w_global - w) / |a|_1``; the server steps by the mean of ``|a|_1`` times their mean.

    ``|a|_1`` is the number of steps, or with a proximal term ``(1 - (1 - lr mu)^steps) / (lr mu)``: the weight that the
    gradients of all steps have in the end. The server's step is then that of local SGD where all clients take as many
    steps, and its fixed point that of the weighted loss where they do not.
    """

    is_plain_sgd = False
    extras: ClassVar[Lengths] = {"steps": 1}

    def finish(self, params: Tensor, point: Tensor, carry: Vectors, steps: Tensor) -> Finished:
        """The normalised update, and by what it was divided."""
        shrink = self.lr * self.proximal
        total = (1 - (1 - shrink) ** steps) / shrink if shrink else steps
        return Finished((params - point) / total, {"steps": total}, {})

    def longest(self, updates: float, weight: float, steps: float, shared: Vectors) -> dict[str, float]:
        """No step counts more than once."""
        return {"steps": steps}

    def aggregate(self, update: Tensor, extras: Vectors, shared: Vectors, share: float) -> tuple[Tensor, Vectors]:
        """The mean update of as many steps as clients take on average."""
        return update * extras["steps"].clamp(min=0), {}
