"""A run's model, freshly initialised."""

import torch
from hydra.utils import get_object
from torch import Tensor

from fedbatch.clients.job import ClientWork
from fedbatch.config.build import build, check_target
from fedbatch.config.given import accepted
from fedbatch.config.schema import RunConfig
from fedbatch.core.errors import ConfigError
from fedbatch.core.random import key
from fedbatch.models.flat import FlatModel


def new_model(config: RunConfig, x: Tensor, num_classes: int) -> FlatModel:
    """The run's model for inputs like ``x`` (n, ...), on their device; the same for the same seed.

    Raises:
        ConfigError: its target gives no module, or one that cannot be trained.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(config.seed, "init") >> 1)
        check_target("model", config.model)
        sizes = {"input_shape": tuple(x.shape[1:]), "num_classes": num_classes}
        module = build("model", config.model, **accepted(get_object(config.model["_target_"]), sizes))
        if not isinstance(module, torch.nn.Module):
            name = config.model.get("_target_")
            raise ConfigError(f"model: {name} must give an nn.Module (got a {type(module).__name__})")
        if any(map(torch.nn.parameter.is_lazy, module.parameters())):
            module.to(x.device)(x)  # lazy layers take their shapes from their first input
    try:
        return FlatModel(module, x.device, config.channels_last, changing=())
    except ValueError as error:
        raise ConfigError(str(error)) from error


def on_model(work: ClientWork, model: FlatModel) -> ClientWork:
    """Client work for a model, if that makes a difference to it.

    Raises:
        ConfigError: it does not go with the model.
    """
    try:
        return work.on_model(model) if hasattr(work, "on_model") else work
    except ValueError as error:
        raise ConfigError(str(error)) from error
