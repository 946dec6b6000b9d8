"""The server optimizer: any torch optimizer, stepped on the aggregated (pseudo-)gradient (Reddi et al. 2021)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedbatch.build import build
from fedbatch.errors import ConfigError
from fedbatch.models.flat import FlatModel


class ServerOptimizer:
    """A torch optimizer on the global model.

    It sees the model's own parameter tensors, so that layer-wise optimizers find their layers, while the round works on
    the flat vector behind them.

    Args:
        model: the global model; its ``params`` are the server's.
        node: the optimizer's ``_target_`` mapping, with ``lr``.
    """

    def __init__(self, model: FlatModel, node: Mapping[str, Any]):
        self.model = model
        self._optimizer = build("server_optimizer", node, model.trainable)
        if "lr" not in node:
            raise ConfigError("server_optimizer: lr must be set; it is what phases scale")
        self.base_lr = float(node["lr"])

    def step(self, mean_update: Tensor, lr: float) -> None:
        """Descend along ``mean_update`` (d,) with learning rate ``lr``."""
        self.model.grads.copy_(mean_update)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Torch's state dict, whose tensors are the live ones."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore from a checkpoint."""
        self._optimizer.load_state_dict(state)
