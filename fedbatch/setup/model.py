"""A run's model, freshly initialised, and inputs as it takes them."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from hydra.utils import get_object
from torch import Tensor

from fedbatch.clients.job import ClientWork
from fedbatch.config.build import build, check_target
from fedbatch.config.given import accepted
from fedbatch.config.schema import RunConfig
from fedbatch.core.errors import ConfigError
from fedbatch.core.layout import Layout
from fedbatch.core.random import key
from fedbatch.models.adapted import Output, adapted
from fedbatch.models.flat import FlatModel

OUTPUT = "output"
"""The key in a model's node that says which part of what it returns are its outputs."""


def new_model(config: RunConfig, x: Tensor, num_classes: int, layout: Layout | None) -> FlatModel:
    """The run's model for inputs like ``x`` (n, ...), on their device; the same for the same seed.

    Args:
        config: of the run.
        x: a few inputs.
        num_classes: outputs that are wanted.
        layout: what lies where in a row of ``x``; None where an input is one array.

    Raises:
        ConfigError: its target gives no module, or one that cannot be trained.
    """
    with torch.random.fork_rng(devices=[]):
        check_target("model", config.model)
        node, output = _output_of(config.model, get_object(config.model["_target_"]))
        shape = tuple(x.shape[1:]) if layout is None else layout.shapes
        try:
            module = _built(node, {"input_shape": shape, "num_classes": num_classes}, key(config.seed, "init") >> 1)
        except ConfigError as error:
            if layout is None:
                raise
            raise ConfigError(f"{error} (an input is several arrays here: {layout.in_words})") from error
        if not isinstance(module, torch.nn.Module):
            name = config.model.get("_target_")
            raise ConfigError(f"model: {name} must give an nn.Module (got a {type(module).__name__})")
        adapted(module, layout, output)
        if any(map(torch.nn.parameter.is_lazy, module.parameters())):
            module.to(x.device)(x)  # lazy layers take their shapes from their first input
    try:
        return FlatModel(module, x.device, config.channels_last, changing=())
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _built(node: dict[str, Any], sizes: dict[str, Any], seed: int) -> Any:
    """What the model's target gives, from a seed, and the sizes that it takes.

    A function that takes any keyword may hand it on to one that does not, as those of torchvision do with input_shape.
    """
    torch.manual_seed(seed)
    taken = accepted(get_object(node["_target_"]), sizes)
    try:
        return build("model", node, **taken)
    except ConfigError as error:
        if "unexpected keyword argument 'input_shape'" not in str(error):
            raise
    torch.manual_seed(seed)
    return build("model", node, **{name: value for name, value in taken.items() if name != "input_shape"})


def _output_of(node: Mapping[str, Any], target: Any) -> tuple[dict[str, Any], Output | None]:
    """The model's node without the key ``output``, and that; a target with an argument of this name gets it itself.

    Raises:
        ConfigError: it is neither a name nor a place.
    """
    if OUTPUT not in node or OUTPUT in inspect.signature(target).parameters:
        return dict(node), None
    output = node[OUTPUT]
    if output is not None and (isinstance(output, bool) or not isinstance(output, str | int)):
        raise ConfigError(f"model.output must be a key, an attribute or a place from 0 (got {output!r})")
    return {name: value for name, value in node.items() if name != OUTPUT}, output


def as_input(values: np.ndarray, model: FlatModel, device: torch.device) -> Tensor:
    """Inputs on the device, numbers in the model's own precision."""
    tensor = torch.from_numpy(values).to(device)
    return tensor.to(model.params.dtype) if tensor.is_floating_point() else tensor


def on_model(work: ClientWork, model: FlatModel) -> ClientWork:
    """Client work for a model, if that makes a difference to it.

    Raises:
        ConfigError: it does not go with the model.
    """
    try:
        return work.on_model(model) if hasattr(work, "on_model") else work
    except ValueError as error:
        raise ConfigError(str(error)) from error
