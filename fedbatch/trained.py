"""The model that a run has trained: as a module, scored on other data, written to a file."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

import fedbatch
from fedbatch.config import given
from fedbatch.config.build import build
from fedbatch.config.compose import composed
from fedbatch.config.schema import RunConfig
from fedbatch.config.trust import OF_A_FOLDER, named, refuse_strangers
from fedbatch.core.errors import ConfigError
from fedbatch.core.files import write_atomically
from fedbatch.metrics.evaluate import example_sums, labelled_logits, logits_of
from fedbatch.metrics.report import Predicted
from fedbatch.models.adapted import restored
from fedbatch.models.flat import FlatModel
from fedbatch.results import identity as identities
from fedbatch.results.folder import begun_values, saved_config
from fedbatch.results.own import trusted_in
from fedbatch.server.checkpoint import load_latest
from fedbatch.server.resume import BEST
from fedbatch.setup import task
from fedbatch.setup.evaluation_sets import fitting
from fedbatch.setup.learning import targets_of
from fedbatch.setup.model import as_input
from fedbatch.setup.task import Task

EVALUATED = ("dataset", "metrics")
"""What may be chosen anew when a trained model is scored."""


def load_model(
    run: str | Path, *, trust: Sequence[str] = (), last: bool = False, best: bool = False, **objects: Any
) -> nn.Module:
    """The model of a run's last checkpoint on the CPU, in evaluation mode; the run may be finished or broken off.

    Args:
        run: the run folder.
        last: the last parameters, of a run that averages them too; else those that are averaged.
        best: those with the best ``target_metric``, of a run with ``keep_best``.
        trust: modules whose code the run's config may name, e.g. ``["my_models"]``.
        objects: those that `fedbatch.run` was given, e.g. ``model=my_factory``.

    Raises:
        ConfigError: there is no run, no checkpoint, or its data or model cannot be built any more.
    """
    with given.kept(objects):
        module = trained(Path(run), trust_of(trust, objects), last, best)[1].module
    return restored(module).eval()


def evaluate(
    run: str | Path, *overrides: str, trust: Sequence[str] = (), best: bool = False, **values: Any
) -> dict[str, Any]:
    """Scores of a run's model on the test split of its data set, or of another.

    Args:
        run: the run folder.
        overrides: as on the command line, of ``dataset`` and ``metrics`` only, e.g. ``"dataset=digits"``.
        trust: modules whose code the run's config may name.
        best: as in `load_model`.
        values: ``dataset`` or ``metrics`` as an object, and the objects that `fedbatch.run` was given.

    Returns:
        ``dataset``, ``examples``, ``test_loss``, the scores of the task, such as ``test_accuracy``, and ``test_*`` of
        ``metrics=calibration``.

    Raises:
        ConfigError: the data do not fit the model, or an override is not one of these.
    """
    objects, nodes = given.sorted_out(values)
    with given.kept(objects):
        held, model = trained(Path(run), trust_of(trust, objects), best=best)
        parts = {**chosen(held.config, overrides), **{name: nodes[name] for name in EVALUATED if name in nodes}}
        data = fitting(held, parts["dataset"])
        metrics = build("metrics", parts["metrics"]) if parts["metrics"] else None
    if metrics is not None and not held.learning.rule.has_classes:
        raise ConfigError("metrics: needs one class an example, and labels are none in this task; set metrics=accuracy")
    x, y = as_input(data.test_x, model, model.params.device), targets_of(held.learning, data.test_y)
    sums = example_sums(model, held.loss, held.of_each, x, y)
    scores = {"dataset": data.name, "examples": sums.count} | held.scores(sums, "test_")
    columns = metrics.columns(Predicted(*labelled_logits(logits_of(model, x), y))) if metrics else {}
    return {f"test_{name}": value for name, value in columns.items() if name != "examples"} | scores


def export(run: str | Path, path: str | Path, *, trust: Sequence[str] = (), best: bool = False, **objects: Any) -> None:
    """Write the parameters and buffers of a run's model as ``.safetensors``, or ``.pt`` for ``torch.load``.

    A path without an ending is a folder, for models that have a method ``export_folder(path)`` of their own; see
    docs/inputs.md. ``best`` is as in `load_model`.

    Raises:
        ConfigError: another ending, the model writes no folder, or the package ``safetensors`` is not there.
    """
    target = Path(path)
    module, state = load_model(run, trust=trust, best=best, **objects), {}
    write = getattr(module, "export_folder", None)
    if not target.suffix and write is not None:
        write(target)
        return
    for name, value in module.state_dict().items():
        state[name] = value.detach().clone(memory_format=torch.contiguous_format)
    if target.suffix == ".pt":
        torch.save(state, target)
        return
    if target.suffix != ".safetensors":
        raise ConfigError(f"export: {target} must end with .safetensors or .pt")
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise ConfigError('export: needs safetensors; pip install "fedbatch[export]", or give a .pt file') from error
    identity = identities.read(Path(run))
    about = {"fedbatch": fedbatch.__version__, "run": identity.run if identity else ""}
    write_atomically(target, save(state, metadata=about))


def trust_of(trust: Sequence[str], objects: Mapping[str, Any]) -> list[str]:
    """What a caller trusts: the modules that he names, and the targets of what he gives."""
    return [*trust, *named({key: given.node(key, value) for key, value in objects.items()})]


def trained(folder: Path, trust: Sequence[str] = (), last: bool = False, best: bool = False) -> tuple[Task, FlatModel]:
    """Data and loss of a run, and its model with what its last checkpoint holds: averaged parameters if there are any.

    The best checkpoint's are those that ``target_metric`` is of.

    Raises:
        ConfigError: there is no run or no checkpoint in the folder, or its config names code that is not trusted.
    """
    parts: dict[str, Any] = {
        name: {}
        for name in (
            *("privacy", "temperature", "active", "faults", "aggregator", "compression", "availability", "sampler"),
            "asynchronous",
        )
    }
    values = begun_values(folder)
    try:
        refuse_strangers({**values, **parts}, trusted_in(folder, trust), OF_A_FOLDER)
    except ConfigError as error:
        raise ConfigError(f"{folder / 'config.yaml'}: {error}") from error
    config = saved_config(folder)
    try:
        state = load_latest(folder / (BEST if best else "checkpoints"))
    except FileNotFoundError as error:
        how = "; keep_best=true keeps the best model of a run" if best else ""
        raise ConfigError(f"{error}{how}") from error
    last = last or (best and not config.target_metric.startswith("average_"))
    held = task.load(replace(config, device="cpu", executor="auto", **parts).to_json())
    model = held.new_model()
    try:
        params, buffers = state.params, state.buffers
        if state.average and not last:
            params, buffers = state.average["params"], state.average["buffers"]
        model.load(params, model.of_all_floats(buffers))
    except RuntimeError as error:
        raise ConfigError(f"{folder}: the checkpoint is of another model than config.yaml names") from error
    task.forget()
    return held, model


def chosen(config: RunConfig, overrides: Sequence[str]) -> Mapping[str, Any]:
    """The run's own data set and metrics with what is overridden."""
    for override in overrides:
        if "=" not in override or override.split("=")[0].split(".")[0] not in EVALUATED:
            raise ConfigError(f"evaluate: {override}: only dataset and metrics can be chosen anew")
    groups = [override for override in overrides if "." not in override.split("=")[0]]
    fresh = composed(groups)
    nodes = {name: fresh[name] if f"{name}=" in " ".join(groups) else getattr(config, name) for name in EVALUATED}
    dotted = OmegaConf.from_dotlist([override for override in overrides if override not in groups])
    merged = OmegaConf.to_container(OmegaConf.merge(OmegaConf.create(nodes), dotted))
    assert isinstance(merged, dict)
    return {str(name): value for name, value in merged.items()}
