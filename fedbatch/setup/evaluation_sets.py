"""Test sets of other data sets, which a run's model is scored on too."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedbatch.core.errors import ConfigError
from fedbatch.data.dataset import Dataset
from fedbatch.setup.learning import read_dataset, targets_of
from fedbatch.setup.model import as_input
from fedbatch.setup.task import Task

EvaluationSets = Mapping[str, tuple[Tensor, Tensor]]
"""Inputs (n, ...) and targets (n, ...) on the device, by name."""


def evaluation_sets_of(task: Task) -> EvaluationSets:
    """The test splits of ``evaluate_on``, as the run's own.

    Raises:
        ConfigError: a name that no column can have, or a data set that does not fit; it names ``evaluate_on``.
    """
    found = {}
    for name, node in task.config.evaluate_on.items():
        if not name.isidentifier() or name in task.scoring.names:
            raise ConfigError(f"evaluate_on.{name}: give it a name that is a word and no score's, as evaluate_on.night")
        try:
            data = fitting(task, node)
        except ConfigError as error:
            raise ConfigError(f"evaluate_on.{name}: {error}") from error
        device = task.test_x.device
        x = as_input(data.test_x, task.node_model, device)
        found[name] = x, targets_of(task.learning, data.test_y).to(device)
    return found


def fitting(held: Task, node: Mapping[str, Any]) -> Dataset:
    """A data set whose examples a run's model takes.

    Raises:
        ConfigError: it has other inputs, or more classes.
    """
    data = read_dataset(node, held.config.task)
    shape = tuple(held.train_x.shape[1:])
    outputs = data.num_classes or data.train_y.shape[1]
    more = outputs > held.learning.outputs if data.num_classes else outputs != held.learning.outputs
    if data.input_shape != shape or data.layout != held.layout or more:
        what = "classes" if data.num_classes else "labels an example"
        has, takes = (
            layout.in_words if layout else one
            for layout, one in ((data.layout, data.input_shape), (held.layout, shape))
        )
        raise ConfigError(
            f"dataset: {data.name} has inputs {has} and {outputs} {what}, and the model takes {takes} and "
            f"{held.learning.outputs}"
        )
    return data
