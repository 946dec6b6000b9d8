"""The systems that are measured, one a module, all with the same two methods."""

from typing import Protocol

from torch import Tensor


class System(Protocol):
    """A simulator set up for one workload."""

    def round(self, round_: int) -> None:
        """Run one federated round; the number chooses the cohort."""

    def params(self) -> Tensor:
        """The server's parameters in one vector, in the order of ``model.parameters()``."""
