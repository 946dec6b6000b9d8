"""The typed core of a run and the checks that need no data.

Pluggable parts (data set, model, controller ...) stay plain mappings with a ``_target_``; their own constructors check
their own arguments. This module imports neither torch nor Flower, so that a wrong word is answered at once.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedbatch import ranges
from fedbatch.errors import ConfigError

Node = dict[str, Any]
CHOICES = {
    "sampling": ("auto", "uniform", "poisson", "all"),
    "weighting": ("auto", "examples", "uniform"),
    "executor": ("auto", "fused", "vmap", "loop", "ghost"),
    "matmul_precision": ("highest", "high", "medium"),
    "report": ("html", "none"),
    "small_clients": ("accept", "refuse"),
    "target_metric": ("test_accuracy", "test_loss", "train_loss", "training_set_loss"),
}


CONTINUED = (
    *("rounds", "resume", "overwrite", "run_dir", "device", "executor", "nodes", "runtime", "threads"),
    *("tracker", "report"),
)
"""What may change when a run is resumed without making it another run."""


@dataclass
class NoiseScaleConfig:
    """How the noise scale is averaged; see `fedbatch.batch.tracker.Tracker`."""

    decay: float = 0.98
    z: float = 1.645
    halves: bool = False
    cosine: bool = False


@dataclass
class RunConfig:
    """A run, resolved. Field names are the names on the command line; conf/config.yaml explains each."""

    dataset: Node
    partitioner: Node
    model: Node
    loss: Node
    client_work: Node
    controller: Node
    server_optimizer: Node
    learning_rate: Node
    time_model: Node
    privacy: Node
    metrics: Node
    temperature: Node
    aggregator: Node
    faults: Node
    runtime: Node
    tracker: Node
    population: int
    cohort_size: int
    client_batch_size: int | None
    rounds: int
    seed: int
    executor: str
    nodes: int
    device: str
    threads: int
    channels_last: bool
    matmul_precision: str
    deterministic: bool | None
    compile: bool
    run_dir: str
    sampling: str
    weighting: str
    client_holdout: float
    evaluate_every_rounds: int
    checkpoint_every_rounds: int
    round_timeout_seconds: float | None
    min_clients: int
    target_metric: str
    target_value: float | None
    record_attention: bool
    record_client_norms: bool
    training_set_examples: int
    active: Node = field(default_factory=dict)
    noise_scale: NoiseScaleConfig = field(default_factory=NoiseScaleConfig)
    small_clients: str = "accept"
    report: str = "html"
    resume: str | None = None
    overwrite: bool = False

    def to_json(self) -> str:
        """One line that `from_json` reads back; the form in which a config travels and is stored."""
        return json.dumps(asdict(self))

    def identity(self) -> str:
        """Hash of all that makes this run another one than the next; see `CONTINUED`."""
        return identity_of(asdict(self))


def identity_of(values: Mapping[str, Any]) -> str:
    """`RunConfig.identity` of plain values."""
    kept = {name: value for name, value in values.items() if name not in CONTINUED}
    return hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=16).hexdigest()


def parse(values: Mapping[str, Any]) -> RunConfig:
    """A checked `RunConfig` from plain values.

    Raises:
        ConfigError: an unknown key, a wrong type or values that do not go together.
    """
    known = [f.name for f in fields(RunConfig)]
    for name in values:
        if name not in known:
            raise ConfigError(f"unknown key {name!r}{did_you_mean(name, known)}")
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), dict(values)))
    except OmegaConfBaseException as error:
        lines = str(error).splitlines()
        raise ConfigError(f"{getattr(error, 'full_key', '') or 'config'}: {lines[0]}") from error
    assert isinstance(config, RunConfig)
    check(config)
    return config


def from_json(text: str) -> RunConfig:
    """The config that `RunConfig.to_json` wrote."""
    return parse(json.loads(text))


def check(config: RunConfig) -> None:
    """Check fields against each other.

    Raises:
        ConfigError: naming the field and the remedy.
    """
    ranges.check(asdict(config))
    for name, choices in CHOICES.items():
        value = getattr(config, name)
        _require(
            value in choices,
            f"{name} must be one of {', '.join(choices)} (got {value!r}){did_you_mean(value, choices)}",
        )
    _require(
        config.target_metric != "training_set_loss" or config.training_set_examples > 0,
        "target_metric=training_set_loss needs training_set_examples, e.g. training_set_examples=2000",
    )
    _require(
        config.nodes <= config.population,
        f"nodes ({config.nodes}) is larger than population ({config.population}); a node hosts at least one client",
    )
    _require(
        config.min_clients <= config.population,
        f"min_clients ({config.min_clients}) is larger than population ({config.population})",
    )
    _require_cohort("cohort_size", config.cohort_size, config)


def check_phases(config: RunConfig, phases: Iterable[Any]) -> None:
    """Check what a controller may choose against the run.

    Raises:
        ConfigError: a phase that cannot be run, or phases whose names lie.
    """
    sizes = {}
    for phase in phases:
        _require_cohort(f"controller.{phase.name}.cohort_size", phase.cohort_size, config)
        sizes[phase.name] = phase.cohort_size * (phase.client_batch_size or 1)
    _require(
        sizes.get("small", 0) <= sizes.get("large", float("inf")),
        f"controller.large ({sizes.get('large')} examples) is smaller than controller.small ({sizes.get('small')}); "
        "raise controller.large.cohort_size or controller.large.client_batch_size",
    )


def did_you_mean(word: Any, known: Iterable[str]) -> str:
    """A suggestion to append to an error, or nothing.

    >>> did_you_mean("ronds", ["rounds", "seed"])
    '; did you mean rounds?'
    """
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _require_cohort(name: str, size: int, config: RunConfig) -> None:
    _require(
        size <= config.population,
        f"{name} ({size}) is larger than population ({config.population}); lower it or raise population",
    )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
