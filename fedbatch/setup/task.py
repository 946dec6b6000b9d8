"""Everything that both ends of a run need, built once from its config: data on the device, model, loss, work."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fedbatch.config.build import build
from fedbatch.config.schema import from_json
from fedbatch.core.errors import ConfigError
from fedbatch.data.dataset import Dataset
from fedbatch.data.mapped import Inputs, MappedRows
from fedbatch.losses.reduced import by_example
from fedbatch.metrics.evaluate import logits_of
from fedbatch.models.dropout import own_generators
from fedbatch.models.flat import FlatModel, Loss
from fedbatch.models.padding import check_padding
from fedbatch.models.trial import Wanted, try_out
from fedbatch.setup import validate
from fedbatch.setup.aggregator import aggregator_of
from fedbatch.setup.augment import TRIED, augment_of
from fedbatch.setup.checks import (
    check_active,
    check_batches,
    check_loss,
    check_model,
    check_works,
    trial_sizes,
    warn_of_small_batches,
)
from fedbatch.setup.compression import compression_of
from fedbatch.setup.device import memory_bytes, prepare
from fedbatch.setup.executor import check_executor
from fedbatch.setup.learning import check_sums, learning_of, loss_of, targets_of
from fedbatch.setup.model import as_input, new_model, on_model
from fedbatch.setup.private import privacy_of, temperature_of
from fedbatch.setup.problem import Task
from fedbatch.tasks.protocol import LearningTask

__all__ = ["Task", "forget", "load"]


@lru_cache(maxsize=1)
def load(config_json: str) -> Task:
    """The task of a config. Cached, so that server and nodes in one process share the data.

    Raises:
        ConfigError: naming the field that is wrong and the remedy.
    """
    config = from_json(config_json)
    device = prepare(config)
    dataset, partition = validate.data(config_json)
    controller = validate.controller(config_json)
    learning = learning_of(config, dataset)
    loss = loss_of(config, learning, dataset)
    check_loss(loss)
    trial = learning.trial()
    loss = loss if trial is None else by_example(loss, trial)
    default_work = build("client_work", config.client_work)
    works = {phase.name: phase.client_work for phase in controller.phases if phase.client_work is not None}
    model = new_model(config, torch.from_numpy(dataset.read(slice(2))).to(device), learning.outputs, dataset.layout)
    train_x, test_x = (
        _inputs(dataset, model, device, refuses=not config.privacy),
        as_input(dataset.test_x, model, device),
    )
    train_y, test_y = (targets_of(learning, y).to(device) for y in (dataset.train_y, dataset.test_y))
    sizes = trial_sizes(controller.phases, works, default_work, partition)
    _try_out(model, loss, learning, (train_x, test_x), train_y, sizes)
    model.is_bfloat16 = config.precision == "bf16"
    if config.compile:
        model.compile()
    check_model(config, model)
    aggregator = aggregator_of(config, model, controller.phases) if config.aggregator else None
    check_works((default_work, *works.values()), aggregator)
    compression = None
    if config.compression:
        compression = compression_of(config, model, (default_work, *works.values()), controller.adaptive)
    default_work, works = on_model(default_work, model), {name: on_model(work, model) for name, work in works.items()}
    temperature = temperature_of(config)
    privacy = None
    if config.privacy:
        privacy = privacy_of(config, controller, works, default_work, partition, model, loss, temperature)
    active = validate.active_learning(config)
    if active is not None:
        pool = int(partition.sizes(np.arange(len(partition), dtype=np.int64)).sum())
        mechanism = privacy.mechanism if privacy else None
        check_active(config, active, mechanism, dataset.train_y.ndim > 1, pool, dataset.mapped)
    if privacy is None or not privacy.mechanism.clips_examples:
        check_batches(config.small_clients, controller.phases, works, default_work, partition)
    if learning.rule.has_classes:
        warn_of_small_batches(loss, controller.phases, partition, learning.outputs)
    task = Task(
        config=config,
        train_x=train_x,
        train_y=train_y,
        test_x=test_x,
        test_y=test_y,
        partition=partition,
        controller=controller,
        loss=loss,
        works=works,
        default_work=default_work,
        node_model=model,
        learning=learning,
        layout=dataset.layout,
        meaning=dict(dataset.meaning) | {"the model": f"{model.params.numel()} parameters"},
        aggregator=aggregator,
        compression=compression,
        privacy=privacy,
        calibration=build("metrics", config.metrics) if config.metrics else None,
        temperature=temperature,
        active=active,
        augment=augment_of(
            config,
            dataset.layout,
            train_x[:TRIED],
            train_y[:TRIED],
            privacy.mechanism.clips_examples if privacy else False,
        ),
        memory_bytes=memory_bytes(config, device),
    )
    if config.executor not in ("auto", "loop"):
        check_executor(task)
    return task


def _try_out(
    model: FlatModel,
    loss: Loss,
    learning: LearningTask,
    inputs: tuple[Inputs, Tensor],
    train_y: Tensor,
    sizes: list[int],
) -> None:
    """A forward, a loss and scores of a few examples of batches of ``sizes``; inputs are of training and test.

    Raises:
        ConfigError: what does not go together.
    """
    train_x, wanted, few = inputs[0], Wanted(learning.output_shape, learning.class_axis), slice(max(sizes))
    try:
        try_out(model, loss, train_x[few], train_y[few], wanted, sizes)
        for x in inputs:
            if isinstance(x, Tensor):  # an input in a file is one array, without padding
                check_padding(model, x, learning.rule.has_positions and train_y.dim() == 2)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    with own_generators(model.is_random):
        outputs = logits_of(model, train_x[few])
    check_sums(learning, outputs, train_y[few], torch.from_numpy(learning.at).to(train_y.device))


def _inputs(dataset: Dataset, model: FlatModel, device: torch.device, refuses: bool) -> Inputs:
    """The training inputs on the device, or where they lie."""
    if not dataset.mapped:
        return as_input(dataset.train_x, model, device)
    return MappedRows(dataset.read, dataset.train_x.shape, model.params.dtype, device, refuses)


def forget() -> None:
    """Let go of the data and the model of the last run."""
    for cached in (load, validate.data, validate.controller):
        cached.cache_clear()
