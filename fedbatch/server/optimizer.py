"""The server optimizer: any torch optimizer, stepped on the aggregated (pseudo-)gradient (Reddi et al. 2021)."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedbatch.aggregation.sums import DivergedError
from fedbatch.config.build import build
from fedbatch.core.errors import ConfigError
from fedbatch.models.flat import FlatModel

DIVERGED = "parameters are not finite any more: training has diverged; lower server_optimizer.lr"


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

    def step(self, mean_update: Tensor, lr: float) -> dict[str, float]:
        """Descend along ``mean_update`` (d,) with learning rate ``lr``.

        Returns:
            Columns of the record: for a layer-wise optimizer the length of the step and the spread of its trust ratios
            over layers, which under privacy are those of the noised update; else none.

        Raises:
            DivergedError: the parameters are not finite afterwards.
        """
        try:
            columns = self._step(mean_update, lr)
        except RuntimeError as error:  # torch's word where a factor of the step is beyond the model's dtype
            if "overflow" not in str(error):
                raise
            raise DivergedError(DIVERGED) from error
        if not math.isfinite(float(self.model.params.sum())):  # one pass; what is not finite does not hide in a sum
            raise DivergedError(DIVERGED)
        return columns

    def _step(self, mean_update: Tensor, lr: float) -> dict[str, float]:
        self.model.grads.copy_(mean_update)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        if not hasattr(self._optimizer, "trust_ratios"):
            self._optimizer.step()
            return {}
        before = self.model.params.clone()
        self._optimizer.step()
        ratios = self._optimizer.trust_ratios()
        spread = {"min": ratios.min(), "median": ratios.median(), "max": ratios.max()} if len(ratios) else {}
        columns = {f"trust_ratio_{name}": float(value) for name, value in spread.items()}
        return {"step_norm": float((self.model.params - before).norm())} | columns

    def state_dict(self) -> dict[str, Any]:
        """Torch's state dict, whose tensors are the live ones."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore from a checkpoint."""
        self._optimizer.load_state_dict(state)
