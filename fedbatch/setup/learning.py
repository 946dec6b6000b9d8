"""Which task a run learns: the one that its config names, or what the labels of its data set say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from hydra.utils import get_object

from fedbatch.config.build import build, check_target
from fedbatch.config.given import accepted
from fedbatch.config.schema import Node, RunConfig
from fedbatch.core.columns import DEFAULT_SCORE
from fedbatch.core.errors import ConfigError
from fedbatch.core.scores import Scoring
from fedbatch.core.scores import checked as in_range
from fedbatch.data.check_dataset import checked
from fedbatch.data.dataset import Dataset
from fedbatch.data.label_rules import CLASSES, LabelRule

if TYPE_CHECKING:  # a task knows torch, which a quick check of a config does without
    from torch import Tensor

    from fedbatch.tasks.protocol import LearningTask

PLAIN: Node = {"_target_": "fedbatch.tasks.Classification"}
DEFAULT_LOSS: Node = {"_target_": "fedbatch.losses.CrossEntropy", "label_smoothing": 0.0}
"""What stands in a config where no loss was chosen: a task puts its own in its place."""


def read_dataset(node: Mapping[str, Any], task: Mapping[str, Any]) -> Dataset:
    """The data set of a target of anybody's, with labels of the kind that the task takes, checked.

    Raises:
        ConfigError: it cannot be built, or its arrays are not what they must be.
    """
    rule = rule_of(task) if task else None
    try:
        if rule is None or rule.kind == CLASSES.kind:
            built = build("dataset", node)
        else:
            check_target("dataset", node)
            built = build("dataset", node, **accepted(get_object(node["_target_"]), {"label_kind": rule.kind}))
        return checked(built, rule or rule_of(said_by(built)))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def said_by(dataset: Any) -> Node:
    """The task that labels ask for: numbers without classes, a class a pixel, or else classes."""
    try:
        labels = np.asarray(dataset.train_y)
    except Exception:  # sequences of several lengths; all else is told when it is checked
        return PLAIN
    if labels.dtype.kind == "f" and getattr(dataset, "num_classes", None) is None:
        return {"_target_": "fedbatch.tasks.Regression"}
    if labels.ndim == 3 and labels.dtype.kind in "iu" and _has_pixels(dataset.train_x):
        return {"_target_": "fedbatch.tasks.Segmentation"}
    return PLAIN


def _has_pixels(x: Any) -> bool:
    """Whether an input, or one of its arrays, has an example of at least two axes."""
    arrays = x.values() if isinstance(x, Mapping) else x if isinstance(x, tuple) else [x]
    try:
        return any(np.asarray(each).ndim >= 3 for each in arrays)
    except Exception:  # told when it is checked
        return False


def rule_of(task: Mapping[str, Any]) -> LabelRule:
    """What labels a task takes."""
    if task == PLAIN:
        return CLASSES
    rule: LabelRule = build("task", task).rule
    return rule


def learning_of(config: RunConfig, dataset: Dataset) -> "LearningTask":
    """The task of a run, with what it found in its labels.

    Raises:
        ConfigError: labels that it cannot work with, or something in the config that needs classes.
    """
    task: LearningTask = build("task", config.task or said_by(dataset))
    if config.privacy and getattr(task, "needs_all_labels", False):
        raise ConfigError(
            "task: the mean and spread of all labels are not covered by the guarantee; set task.centre and task.scale"
        )
    try:
        learning = task.fitted(dataset.train_y, dataset.num_classes)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    _check_scores(learning)
    if not learning.rule.has_classes:
        _refuse_what_needs_classes(config)
    target_of(config, learning)
    return learning


def targets_of(learning: "LearningTask", labels: npt.NDArray[Any]) -> "Tensor":
    """What a loss compares outputs with, from checked labels (N, ...).

    Raises:
        ConfigError: labels that the task cannot hold.
    """
    try:
        return learning.targets(labels)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def loss_of(config: RunConfig, learning: "LearningTask", dataset: Dataset) -> Any:
    """The loss of the config, or the task's own in the place of the default one, told the labels if it asks for them.

    Raises:
        ConfigError: it cannot work with the labels, or reads those of everybody where nobody may.
    """
    if config.loss == DEFAULT_LOSS:
        return learning.loss()
    loss = build("loss", config.loss)
    if not hasattr(loss, "fitted"):
        return loss
    if getattr(loss, "needs_all_labels", False) and config.privacy:
        raise ConfigError(
            "loss.class_weights: exact numbers of labels are not covered by the guarantee; give a number for each class"
        )
    if not learning.rule.has_classes:
        raise ConfigError(
            f"loss: {type(loss).__name__} needs one class an example; take {type(learning.loss()).__name__}"
        )
    try:
        return loss.fitted(dataset.train_y, learning.outputs)
    except ValueError as error:
        raise ConfigError(str(error)) from error


@dataclass(frozen=True)
class Target:
    """The column that may end a run, and whether a higher value is the better one."""

    column: str
    is_higher_better: bool


def target_of(config: RunConfig, learning: "LearningTask") -> Target:
    """What may end a run: ``target_metric``, or the task's score where the default one is of another task.

    Raises:
        ConfigError: it is a score of another task.
    """
    known = dict.fromkeys(("test_loss", "average_test_loss", "train_loss", "training_set_loss"), "lower")
    for score in learning.scores:
        if score.better:
            known |= {f"{prefix}{score.name}": score.better for prefix in ("test_", "average_test_")}
    column = config.target_metric
    if column == DEFAULT_SCORE and column not in known:
        column = f"test_{learning.score}"
    if column not in known:
        raise ConfigError(f"target_metric={column} is no score of this task; use one of {', '.join(sorted(known))}")
    return Target(column, known[column] == "higher")


def scoring_of(config: RunConfig, learning: "LearningTask", loss: Any) -> Scoring:
    """What the run says of its scores, and of a loss that took the place of the config's default one."""
    better = {each.name: each.better for each in learning.scores}
    name = type(loss).__name__
    own = {"task_loss": name} if config.loss == DEFAULT_LOSS and name != "CrossEntropy" else {}
    return Scoring(tuple(better), learning.score, better[learning.score], {**learning.facts(), **own})


def check_sums(learning: "LearningTask", outputs: "Tensor", targets: "Tensor", at: "Tensor") -> None:
    """Try a task on a few outputs and targets (n, ...), taken at its constants, before an evaluation does.

    Raises:
        ConfigError: its sums have another shape or type than they must, or its scores cannot be computed of them.
    """
    size = learning.bounds().shape[1]
    try:
        sums = learning.sums(outputs, targets, at)
        if tuple(sums.shape) != (len(targets), size) or sums.element_size() != 8 or not sums.is_floating_point():
            raise ValueError(
                f"its sums must be float64 of shape {(len(targets), size)}, a row an example and as many columns as "
                f"its bounds (got {tuple(sums.shape)} of {sums.dtype})"
            )
        whole = sums.sum(dim=0).cpu().numpy()
        in_range(learning.scores, learning.columns(np.array(float(len(targets))), whole, learning.at), "test_")
    except Exception as error:  # whatever a task of somebody's own raises is about the task
        text = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(text if text.startswith("task") else f"task: {text}") from error


def _check_scores(learning: "LearningTask") -> None:
    names = [each.name for each in learning.scores]
    if learning.score not in names:
        raise ConfigError(f"task: its score {learning.score!r} must be one of its scores ({', '.join(names)})")
    if len({*names, "loss"}) < len(names) + 1:
        raise ConfigError(f"task: its scores ({', '.join(names)}) must have different names, and none may be 'loss'")
    for each in learning.scores:
        if each.better not in ("higher", "lower", "") or (each.name == learning.score and not each.better):
            raise ConfigError(f"task: {each.name} must be better when 'higher' or 'lower' (got {each.better!r})")


def _refuse_what_needs_classes(config: RunConfig) -> None:
    for field, given, remedy in (
        ("metrics", bool(config.metrics), "metrics=accuracy"),
        ("temperature", bool(config.temperature), "temperature=none"),
        ("active", bool(config.active), "active=none"),
        ("privacy.accuracy_noise", config.privacy.get("accuracy_noise") is not None, "privacy.accuracy_noise=null"),
    ):
        if given:
            raise ConfigError(f"{field}: needs one class an example, and labels are none in this task; set {remedy}")
