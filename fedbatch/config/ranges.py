"""The range of every number in a config, by its dotted key: what is outside is refused before anything is built.

One table, because a number means the same whichever part of a group takes it. A key of one's own part that is not here
must be finite or say otherwise in its own constructor.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from fedbatch.core.errors import ConfigError


@dataclass(frozen=True)
class Range:
    """An interval, written as ``[0, 1)``: square brackets hold their end, round ones do not; or infinity besides.

    >>> 0.0 in Range("[0, 1)"), 1.0 in Range("[0, 1)"), float("inf") in Range("(0, 9] or inf")
    (True, False, True)
    """

    text: str

    def __contains__(self, value: float) -> bool:
        interval, _, other = self.text.partition(" or ")
        low, high = (float(end) for end in interval[1:-1].split(","))
        above = value >= low if interval[0] == "[" else value > low
        below = value <= high if interval[-1] == "]" else value < high
        return (above and below) or (bool(other) and value == float(other))


COUNT, FROM_ONE, SHARE, RATE = "[0, 1e12]", "[1, 1e12]", "[0, 1]", "(0, 1e38]"

RANGES = {
    "population": FROM_ONE,
    "cohort_size": FROM_ONE,
    "client_batch_size": FROM_ONE,
    "rounds": FROM_ONE,
    "seed": "[0, 9e18]",
    "nodes": "[1, 1e6]",
    "threads": "[1, 4096]",
    "memory_bytes": "[1, 1e18]",
    "client_holdout": "[0, 1)",
    "evaluate_every_rounds": COUNT,
    "checkpoint_every_rounds": COUNT,
    "round_timeout_seconds": "(0, 1e9]",
    "min_clients": FROM_ONE,
    "target_value": "[-1e38, 1e38]",
    "patience": FROM_ONE,
    "min_delta": "[0, 1e38]",
    "training_set_examples": COUNT,
    "noise_scale.decay": "[0, 1)",
    "noise_scale.z": "(0, 100]",
    "noise_scale.memory": SHARE,
    "noise_scale.groups": "[0, 1024]",
    "noise_scale.every": FROM_ONE,
    "over_selection": "[1, 1000]",
    "deadline_seconds": "(0, 1e9]",
    "availability.arrive": "[0.001, 1]",
    "availability.leave": SHARE,
    "availability.share": "(0, 1]",
    "availability.start": SHARE,
    "availability.spread": SHARE,
    "availability.*_seconds": "(0, 1e12]",
    "asynchronous.concurrency": "[1, 1e6]",
    "asynchronous.max_staleness": "[0, 1e9]",
    "asynchronous.staleness.exponent": "[0, 100]",
    "sampler.power": "[0, 10]",
    "sampler.ratio": "[1, 1e6]",
    "sampler.strata": FROM_ONE,
    "learning_rate.exponent": SHARE,
    "learning_rate.max_factor": "(0, 1e6]",
    "learning_rate.*warmup_rounds": COUNT,
    "learning_rate.max_growth": "[1, 1e6]",
    "learning_rate.decay_share": "(0, 1]",
    "learning_rate.examples": FROM_ONE,
    "time_model.compute_seconds_per_example": "[0, 1e9]",
    "time_model.speed_spread": "[0, 10]",
    "time_model.latency_seconds": "[0, 1e9]",
    "time_model.bandwidth_*_bytes_per_second": "(0, 1e18]",
    "active.labels_per_query": FROM_ONE,
    "active.queries": COUNT,
    "active.seed_labels": COUNT,
    "active.selector.candidates_per_label": "[1, 1e6]",
    "active.selector.epsilon": "[0, 1e38]",
    "active.selector.*cluster_size": "[1, 1e9]",
    "aggregator.adversaries": COUNT,
    "aggregator.norm": "(0, 1e38]",
    "aggregator.select": FROM_ONE,
    "aggregator.share": "[0, 0.5)",
    "compression.stages.*share": "(0, 1]",
    "compression.stages.*levels": "[1, 32767]",
    "compression.stages.*bucket": FROM_ONE,
    "compression.stages.*rank": "[1, 1e6]",
    "client_work.epochs": "[1, 1e6]",
    "client_work.steps": "[1, 1e6]",
    "client_work.lr": RATE,
    "client_work.proximal": "[0, 1e38]",
    "controller.*client_work.epochs": "[1, 1e6]",
    "controller.*client_work.steps": "[1, 1e6]",
    "controller.*client_work.lr": RATE,
    "controller.*client_work.proximal": "[0, 1e38]",
    "*client_work.momentum": "[0, 1)",
    "*client_work.alpha": RATE,
    "*client_work.pull": "[0, 1e38]",
    "*client_work.betas": "[0, 1)",
    "*client_work.eps": "(0, 1e6]",
    "*client_work.weight_decay": "[0, 1e6]",
    "*client_work.clip_norm": RATE,
    "controller.*cohort_size": FROM_ONE,
    "controller.*client_batch_size": FROM_ONE,
    "controller.*lr": RATE,
    "controller.up": "(0, 1e38]",
    "controller.down": "[0, 1e38]",
    "controller.every_rounds": FROM_ONE,
    "controller.times": "[0, 40]",
    "controller.exchange_rate": "(0, 1e38]",
    "controller.margin": "[1, 1e6]",
    "controller.settle_rounds": COUNT,
    "controller.starts.*": COUNT,
    "controller.step": "(1, 1e6]",
    "controller.rounds": FROM_ONE,
    "controller.share": "(0, 1)",
    "controller.rate_factor": "(0, 1]",
    "controller.decay_share": "(0, 1]",
    "controller.scale": "[1, 1e6]",
    "controller.eta": "(0, 1e6]",
    "controller.budget": "(0, 1e38]",
    "controller.finish": "[0, 1)",
    "dataset.context": "[1, 1e6]",
    "dataset.examples": FROM_ONE,
    "dataset.label_noise": SHARE,
    "dataset.max_length": "[2, 1e7]",
    "dataset.mask_fraction": "(0, 1]",
    "dataset.min_sequences": FROM_ONE,
    "dataset.noise": "[0, 1e6]",
    "dataset.originals": FROM_ONE,
    "dataset.ratio": "[1, 1e6]",
    "dataset.num_classes": "[2, 1e9]",
    "dataset.scale": "(0, 1e6]",
    "dataset.test_fraction": "(0, 1)",
    "dataset.text_features": "[1, 1e9]",
    "faults.strength": "[-1e38, 1e38]",
    "faults.straggler_seconds": "[0, 1e9]",
    "faults.*": SHARE,
    "loss.beta": "[0, 1e6]",
    "loss.class_weights": "[0, 1e6]",
    "loss.delta": "(0, 1e38]",
    "loss.gamma": "[0, 1e3]",
    "task.ignore_index": "[-1e9, 1e9]",
    "task.auroc_bins": "[0, 1e6]",
    "loss.weight": "[0, 1e6]",
    "loss.*label_smoothing": "[0, 1)",
    "loss.secondary.accuracies": SHARE,
    "loss.secondary.bins": "[1, 1e6]",
    "loss.secondary.kappa": "[0, 1]",
    "loss.secondary.norm": "[1, 1e3]",
    "loss.secondary.temperature": "(0, 1e6]",
    "loss.secondary.threshold": "[0, 1e6]",
    "loss.secondary.width": "(0, 1e6]",
    "metrics.bins": "[1, 1e6]",
    "metrics.replicates": "[2, 1e6]",
    "model.width": "[1, 1e6]",
    "model.depth": "[1, 1e3]",
    "model.layers": "[1, 1e3]",
    "model.heads": "[1, 1e4]",
    "model.hidden": "[1, 1e6]",
    "model.channels": "[1, 1e6]",
    "model.groups": "[1, 1e6]",
    "model.code": "[1, 1e6]",
    "model.lora.r": "[1, 1e5]",
    "model.lora.alpha": "(0, 1e9]",
    "model.lora.dropout": "[0, 1)",
    "*.seed": "[0, 9e18]",
    "partitioner.first": COUNT,
    "partitioner.*alpha": "(0, 1e6]",
    "partitioner.*": FROM_ONE,
    "privacy.bands": "[1, 1e6]",
    "privacy.bits": "[2, 48]",
    "privacy.clip_norm": "(0, 1e38] or inf",
    "privacy.clip_quantile": "(0, 1)",
    "privacy.clip_rate": "(0, 10]",
    "privacy.colluders": COUNT,
    "privacy.count_noise": "(0, 1e6]",
    "privacy.delta": "(0, 1)",
    "privacy.min_clients": FROM_ONE,
    "augment.padding": "[0, 1e4]",
    "augment.transform.*": "[-1e6, 1e6]",
    "averaging.decay": "[0, 1)",
    "averaging.power": "[0, 1e6]",
    "privacy.accuracy_noise": "(0, 1e6]",
    "privacy.deployment_*": FROM_ONE,
    "privacy.noise_multiplier": "[0, 1e6]",
    "privacy.quantum": "(0, 1]",
    "privacy.target_epsilon": "(0, 1000]",
    "runtime.*pus_per_node": "[0, 4096]",
    "server_optimizer.lr": RATE,
    "server_optimizer.*momentum": "[0, 1)",
    "server_optimizer.*dampening": SHARE,
    "server_optimizer.*betas": "[0, 1)",
    "server_optimizer.*ns_steps": "[1, 99]",
    "server_optimizer.*eps": "[0, 1e6]",
    "server_optimizer.*weight_decay": "[0, 1e6]",
    "server_optimizer.*trust_coefficient": "(0, 1e6]",
    "server_optimizer.*phi_*": "[0, 1e38] or inf",
    "temperature.clip_norm": "(0, 1e38]",
    "temperature.relative_noise": "(0, 1e6]",
    "tracker.*every_rounds": FROM_ONE,
    "tracker.*skip": FROM_ONE,
    "tracker.*rounds": FROM_ONE,
}


LISTS = {"betas", "accuracies", "class_weights"}
"""Keys whose value is a list of numbers, each in the range."""


def range_of(key: str) -> Range | None:
    """The range of a dotted key, or None where there is none."""
    return next((Range(text) for pattern, text in RANGES.items() if fnmatchcase(key, pattern)), None)


def check(values: Mapping[str, Any], within: str = "") -> None:
    """Refuse the first number of a nested config that is outside its range.

    Raises:
        ConfigError: naming the key, its range and the value.
    """
    # A nested value may be taken from one of this level, which is then the one to name.
    for name, value in sorted(values.items(), key=lambda item: isinstance(item[1], Mapping)):
        key = f"{within}{name}"
        if isinstance(value, Mapping):
            check(value, f"{key}.")
        for number in value if isinstance(value, list | tuple) and name in LISTS else [value]:
            allowed = range_of(key) if isinstance(number, int | float) and not isinstance(number, bool) else None
            if allowed is not None and number not in allowed:
                raise ConfigError(f"{key} must be in {allowed.text} (got {number})")
        if isinstance(value, list | tuple) and name not in LISTS and range_of(key) is not None:
            raise ConfigError(f"{key} must be one number (got {value})")
