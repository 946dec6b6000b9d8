"""Public names of parts, and the names that they had before.

A ``_target_`` in a config is public for ever: it stands in people's YAML and in saved runs. Parts are named at package
level (``fedbatch.losses.Focal``), whatever file they lie in; a name that was valid once is read as the public one.
"""

from collections.abc import Mapping
from typing import Any

MOVED = {
    "fedbatch.active.badge": ("fedbatch.active", "Badge"),
    "fedbatch.active.coreset": ("fedbatch.active", "CoreSet"),
    "fedbatch.active.learning": ("fedbatch.active", "ActiveLearning"),
    "fedbatch.active.selectors": ("fedbatch.active", "ClusterMargin Entropy Margin Random"),
    "fedbatch.batch.controllers": ("fedbatch.controllers", "Adaptive Fixed NoiseScaleSwitch Schedule doubling"),
    "fedbatch.batch.goodput": ("fedbatch.controllers", "Goodput"),
    "fedbatch.batch.learning_rate": ("fedbatch.batch", "LearningRate"),
    "fedbatch.batch.phases": ("fedbatch.controllers", "Phase"),
    "fedbatch.clients.fedsgd": ("fedbatch.clients", "FedSGD"),
    "fedbatch.clients.local_sgd": ("fedbatch.clients", "LocalSGD"),
    "fedbatch.data.bundled": ("fedbatch.data", "breast_cancer digits"),
    "fedbatch.data.fashion": ("fedbatch.data", "fashion_mini fashion_mnist fashion_pixels"),
    "fedbatch.data.hub": ("fedbatch.data", "hugging_face"),
    "fedbatch.data.partition": ("fedbatch.data", "drawn from_flower"),
    "fedbatch.data.pools": ("fedbatch.data", "long_tail redundant"),
    "fedbatch.data.shakespeare": ("fedbatch.data", "shakespeare_roles"),
    "fedbatch.faults": ("fedbatch.runtime", "Faults"),
    "fedbatch.losses.avuc": ("fedbatch.losses", "AvUC SAvUC"),
    "fedbatch.losses.brier": ("fedbatch.losses", "Brier"),
    "fedbatch.losses.confidence_penalty": ("fedbatch.losses", "ConfidencePenalty"),
    "fedbatch.losses.cross_entropy": ("fedbatch.losses", "CrossEntropy"),
    "fedbatch.losses.focal": ("fedbatch.losses", "FLSD53 Focal"),
    "fedbatch.losses.mmce": ("fedbatch.losses", "MMCE"),
    "fedbatch.losses.soft_ece": ("fedbatch.losses", "FrozenBins SBECE SBECELabelBinned"),
    "fedbatch.losses.sum": ("fedbatch.losses", "Sum"),
    "fedbatch.metrics.report": ("fedbatch.metrics", "Calibration"),
    "fedbatch.metrics.scaling": (
        "fedbatch.metrics",
        "ClientTemperature PrivateTemperature SharedTemperature SoftBinTemperature",
    ),
    "fedbatch.models.autoencoder": ("fedbatch.models", "autoencoder"),
    "fedbatch.models.cnn": ("fedbatch.models", "cnn"),
    "fedbatch.models.linear": ("fedbatch.models", "logistic mlp"),
    "fedbatch.models.resnet": ("fedbatch.models", "resnet18"),
    "fedbatch.models.transformer": ("fedbatch.models", "bert gpt"),
    "fedbatch.optim.lamb": ("fedbatch.optim", "LAMB"),
    "fedbatch.optim.lars": ("fedbatch.optim", "LARS"),
    "fedbatch.optim.merit": ("fedbatch.optim", "MERIT"),
    "fedbatch.privacy.mechanisms": ("fedbatch.privacy", "ClientCentral ExampleDistributed ExampleLocal"),
    "fedbatch.report.at_end": ("fedbatch.report", "ReportAtEnd"),
    "fedbatch.robust": ("fedbatch.aggregation", "Krum NormBound TrimmedMean coordinate_median"),
    "fedbatch.runtime.local": ("fedbatch.runtime", "Local"),
    "fedbatch.runtime.ray": ("fedbatch.runtime", "Ray"),
    "fedbatch.time_model": ("fedbatch.batch", "TimeModel"),
    "fedbatch.trackers.mlflow": ("fedbatch.trackers", "MLflow"),
    "fedbatch.trackers.tensorboard": ("fedbatch.trackers", "TensorBoard"),
    "fedbatch.trackers.wandb": ("fedbatch.trackers", "WandB"),
}
"""Module of before -> public package, and the names that moved."""

ALIASES = {f"{old}.{name}": f"{new}.{name}" for old, (new, names) in MOVED.items() for name in names.split()}


def public(node: Any) -> Any:
    """A config with the public name in each ``_target_``, nested ones too.

    >>> public({"_target_": "fedbatch.losses.focal.Focal", "gamma": 3.0})
    {'_target_': 'fedbatch.losses.Focal', 'gamma': 3.0}
    """
    if isinstance(node, Mapping):
        return {key: ALIASES.get(value, value) if key == "_target_" else public(value) for key, value in node.items()}
    return [public(value) for value in node] if isinstance(node, list | tuple) else node
