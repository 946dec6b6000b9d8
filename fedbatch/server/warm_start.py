"""Start from parameters that are there already: of another run, or of a file."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor

from fedbatch.config import names
from fedbatch.config.schema import RunConfig
from fedbatch.core.errors import ConfigError
from fedbatch.models.flat import FlatModel
from fedbatch.results.folder import config_values
from fedbatch.server.checkpoint import load_latest


def warm_start(model: FlatModel, config: RunConfig) -> None:
    """Put the parameters and buffers that ``config.start_from`` names into the model, in place; null leaves it alone.

    A folder is that of a run with the same model; averaged parameters are taken if it has any. A file is what
    `fedbatch export` writes: ``.safetensors``, or ``.pt`` with a state dict, which is read without running its code.

    Raises:
        ConfigError: it cannot be read, or is of another model; ``start_skip`` names tensors that keep their start.
    """
    if config.start_from is None:
        return
    source = Path(config.start_from)
    if source.is_dir():
        _from_run(model, config, source)
    else:
        _from_file(model, source, config.start_skip)


def _from_run(model: FlatModel, config: RunConfig, folder: Path) -> None:
    theirs = names.public(config_values(folder).get("model"))
    if theirs != names.public(config.model) or config.start_skip:
        raise ConfigError(
            f"start_from: {folder} trained another model, or start_skip is given; write its parameters to a file with "
            f"fedbatch export {folder} start.safetensors, and give start_from=start.safetensors"
        )
    try:
        state = load_latest(folder / "checkpoints")
    except FileNotFoundError as error:
        raise ConfigError(f"start_from: {error}") from error
    params, buffers = state.params, state.buffers
    if state.average:
        params, buffers = state.average["params"], state.average["buffers"]
    if params.shape != model.params.shape:
        raise ConfigError(
            f"start_from: the model of {folder} has {len(params):,} parameters and that of this run "
            f"{len(model.params):,}; they need data of the same shape"
        )
    model.load(params.to(model.params), model.of_all_floats(buffers).to(model.params.device))


def _from_file(model: FlatModel, path: Path, skip: Sequence[str]) -> None:
    every = model.module.state_dict()
    own = {name: every[name] for name in (*model.names, *model.changing)}
    if unused := [pattern for pattern in skip if not any(fnmatchcase(name, pattern) for name in own)]:
        raise ConfigError(f"start_skip: {unused[0]} is no tensor that is trained; these are {', '.join(own)}")
    found = {name: value for name, value in _read(path).items() if not any(fnmatchcase(name, each) for each in skip)}
    wanted = {name: value for name, value in own.items() if not any(fnmatchcase(name, each) for each in skip)}
    if lost := sorted(wanted.keys() - found.keys()):
        raise ConfigError(f"start_from: {path} lacks {lost[0]}{_more(lost)}; start_skip=[{lost[0]}] keeps its start")
    if unknown := sorted(found.keys() - every.keys()):
        raise ConfigError(
            f"start_from: {path} has {unknown[0]}{_more(unknown)}, which the model has not; is it of another model?"
        )
    for name, value in found.items():
        _check(name, value, every[name], path, is_copied=name in wanted)
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(found[name])
    model.pull_buffers()


def _check(name: str, theirs: Tensor, own: Tensor, path: Path, is_copied: bool) -> None:
    """See that a tensor fits; one that does not travel, as nodes build it for themselves, must be there already."""
    if own.shape != theirs.shape:
        raise ConfigError(
            f"start_from: {name} has shape {tuple(theirs.shape)} in {path} and {tuple(own.shape)} in the model; "
            f"start_skip=[{name}] keeps its start"
        )
    if not theirs.isfinite().all():
        raise ConfigError(f"start_from: {name} in {path} has values that are not finite")
    if not is_copied and not torch.allclose(own.to(theirs), theirs):
        raise ConfigError(
            f"start_from: {name} is not trained, so that it does not travel to the nodes, and differs from {path}; let "
            "the model itself be built with it"
        )


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _read(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a file by name."""
    if path.suffix not in (".safetensors", ".pt"):
        raise ConfigError(f"start_from: {path} must be a run folder, a .safetensors file or a .pt file")
    if not path.is_file():
        raise ConfigError(f"start_from: there is no {path}")
    try:
        if path.suffix == ".pt":
            found = torch.load(path, weights_only=True, map_location="cpu")
        else:
            from safetensors.torch import load_file

            found = load_file(path)
    except ImportError as error:
        raise ConfigError('start_from: needs safetensors; pip install "fedbatch[export]"') from error
    except Exception as error:  # whatever a damaged file makes them raise
        raise ConfigError(f"start_from: {path} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ConfigError(f"start_from: {path} holds no state dict; write one with fedbatch export RUN {path.name}")
    return found
