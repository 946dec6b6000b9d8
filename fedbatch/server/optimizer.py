"""The server optimizer: any torch optimizer, stepped on the aggregated (pseudo-)gradient (Reddi et al. 2021)."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from hydra.utils import get_object
from torch import Tensor

from fedbatch.aggregation.sums import DivergedError
from fedbatch.config.build import check_target
from fedbatch.core.errors import ConfigError
from fedbatch.models.flat import FlatModel
from fedbatch.server.parameter_groups import optimizer_of, set_rate

DIVERGED = "parameters are not finite any more: training has diverged; lower server_optimizer.lr"

MEMORYLESS = {"momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0}
"""Settings, by the names that torch gives them, of an optimizer that takes a step from one gradient alone."""


class ServerOptimizer:
    """A torch optimizer on the global model.

    It sees the model's own parameter tensors, so that layer-wise optimizers find their layers, while the round works on
    the flat vector behind them.

    Args:
        model: the global model; its ``params`` are the server's.
        node: the optimizer's ``_target_`` mapping, with ``lr`` and, where parameters differ in their options,
            ``groups``; see `fedbatch.server.parameter_groups`.
    """

    def __init__(self, model: FlatModel, node: Mapping[str, Any]):
        check_target("server_optimizer", node)
        self.model, self._node = model, node
        self._optimizer = self._built(model.trainable)
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
        set_rate(self._optimizer, lr)
        if not hasattr(self._optimizer, "trust_ratios"):
            self._optimizer.step()
            return {}
        before = self.model.params.clone()
        self._optimizer.step()
        ratios = self._optimizer.trust_ratios()
        spread = {"min": ratios.min(), "median": ratios.median(), "max": ratios.max()} if len(ratios) else {}
        columns = {f"trust_ratio_{name}": float(value) for name, value in spread.items()}
        return {"step_norm": float((self.model.params - before).norm())} | columns

    def direction(self) -> Callable[[Tensor], Tensor]:
        """From a gradient (d,) to the step (d,) that the optimizer would take now on it alone, both float64.

        Without momentum and weight decay, at a learning rate of 1; second moments are those of the run, into which the
        gradient enters as in any step. Neither the optimizer nor the model is changed.
        """
        own = self.model.split(self.model.params.detach().double())
        params = [p.clone().requires_grad_() for p in own]
        optimizer, state = self._built(params), self._optimizer.state_dict()

        def step(gradient: Tensor) -> Tensor:
            optimizer.load_state_dict(copy.deepcopy(state))  # torch keeps some of the tensors it is given
            for group in optimizer.param_groups:
                group.update({name: value for name, value in MEMORYLESS.items() if name in group})
                if "betas" in group:
                    group["betas"] = (0.0, *group["betas"][1:])
            set_rate(optimizer, 1.0)
            with torch.no_grad():
                for p, start, grad in zip(params, own, self.model.split(gradient), strict=True):
                    p.copy_(start)
                    p.grad = grad
                optimizer.step()
                return self.model.join([start - p for p, start in zip(params, own, strict=True)])

        return step

    def _built(self, params: Sequence[Tensor]) -> Any:
        """The optimizer of the config on these tensors, told their names where it asks for them."""
        by_name = getattr(get_object(self._node["_target_"]), "by_name", False)
        return optimizer_of(self._node, list(zip(self.model.names, params, strict=True)), by_name)

    def state_dict(self) -> dict[str, Any]:
        """Torch's state dict, whose tensors are the live ones."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore from a checkpoint."""
        self._optimizer.load_state_dict(state)
