"""The typed core of a run and the checks that need no data.

Pluggable parts (data set, model, controller ...) stay plain mappings with a ``_target_``; their own constructors check
their own arguments. This module imports neither torch nor Flower, so that a wrong word is answered at once.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from functools import lru_cache
from typing import Any, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedbatch.config import names
from fedbatch.config.annotations import in_words
from fedbatch.config.checks import check, did_you_mean
from fedbatch.core.errors import ConfigError

Node = dict[str, Any]


VERSION = 1
"""Of the config's keys and of what they mean."""

CONTINUED = (
    *("rounds", "resume", "overwrite", "run_dir", "device", "executor", "nodes", "runtime", "threads"),
    *("memory_bytes", "tracker", "report", "trust", "version", "patience", "min_delta", "keep_best", "evaluate_on"),
)
"""What may change when a run is resumed without making it another run."""


@dataclass
class NoiseScaleConfig:
    """How the noise scale is averaged; see `fedbatch.batch.average.RunningNoiseScale`."""

    decay: float = 0.98
    z: float = 1.645
    memory: float = 0.0
    halves: bool = False
    cosine: bool = False
    groups: int = 0
    every: int = 20
    layers: bool = False


@dataclass
class RunConfig:
    """A run, resolved. Field names are the names on the command line; conf/config.yaml explains each.

    What a new run starts with stands in conf/. The defaults here are what a missing key means in the config of an
    earlier version; they never change.
    """

    dataset: Node
    partitioner: Node
    model: Node
    loss: Node
    client_work: Node
    controller: Node
    server_optimizer: Node
    learning_rate: Node
    time_model: Node
    runtime: Node
    population: int
    cohort_size: int
    client_batch_size: int | None
    rounds: int
    run_dir: str
    task: Node = field(default_factory=dict)
    privacy: Node = field(default_factory=dict)
    metrics: Node = field(default_factory=dict)
    temperature: Node = field(default_factory=dict)
    augment: Node = field(default_factory=dict)
    averaging: Node = field(default_factory=dict)
    aggregator: Node = field(default_factory=dict)
    compression: Node = field(default_factory=dict)
    availability: Node = field(default_factory=dict)
    sampler: Node = field(default_factory=dict)
    asynchronous: Node = field(default_factory=dict)
    faults: Node = field(default_factory=dict)
    tracker: Node = field(default_factory=dict)
    active: Node = field(default_factory=dict)
    noise_scale: NoiseScaleConfig = field(default_factory=NoiseScaleConfig)
    version: int = VERSION
    seed: int = 0
    executor: str = "auto"
    nodes: int = 1
    device: str = "cpu"
    threads: int = 1
    memory_bytes: float | None = None
    channels_last: bool = True
    matmul_precision: str = "highest"
    precision: str = "float32"
    deterministic: bool | None = None
    compile: bool = False
    sampling: str = "auto"
    over_selection: float = 1.0
    deadline_seconds: float | None = None
    weighting: str = "auto"
    small_clients: str = "accept"
    client_holdout: float = 0.0
    evaluate_every_rounds: int = 10
    checkpoint_every_rounds: int = 50
    round_timeout_seconds: float | None = None
    min_clients: int = 1
    evaluate_on: Node = field(default_factory=dict)
    target_metric: str = "test_accuracy"
    target_value: float | None = None
    patience: int | None = None
    min_delta: float = 0.0
    keep_best: bool = False
    start_from: str | None = None
    start_skip: list[str] = field(default_factory=list)
    one_batch: bool = False
    record_attention: bool = False
    record_client_norms: bool = False
    training_set_examples: int = 0
    report: str = "html"
    resume: str | None = None
    trust: list[str] = field(default_factory=list)
    overwrite: bool = False

    @property
    def is_ended_by_score(self) -> bool:
        """Whether ``target_metric`` may end the run."""
        return self.target_value is not None or self.patience is not None

    def draw_round(self, round_: int) -> int:
        """The round whose cohort and examples a round has: its own, or the first one's with ``one_batch``."""
        return 0 if self.one_batch else round_

    def to_json(self) -> str:
        """One line that `from_json` reads back; the form in which a config travels and is stored."""
        return json.dumps(asdict(self))

    def identity(self) -> str:
        """Hash of all that makes this run another one than the next; see `identity_of`."""
        return identity_of(asdict(self))


def identity_of(values: Mapping[str, Any]) -> str:
    """Hash of a config without what may change in a run (`CONTINUED`).

    It depends neither on the files in which parts lie nor on keys that are at their defaults, so that a run stays the
    same one when parts are moved and keys are added. Private noise is keyed by it.
    """
    public = _public(values)
    part = (public.get("privacy") or {}).get("_target_", "")
    added = ADDED | {"privacy": ADDED["privacy"] | ADDED_TO.get(part, {})}
    kept = {name: value for name, value in _beyond(public, DEFAULTS | added).items() if name not in CONTINUED}
    return hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=16).hexdigest()


def _public(values: Mapping[str, Any]) -> Node:
    return {str(name): names.public(value) for name, value in values.items()}


def _beyond(values: Node, defaults: Node) -> Node:
    """What is not at its default; groups of keys that have defaults are gone through."""
    found = {}
    for name, value in values.items():
        default = defaults.get(name, MISSING)
        if isinstance(default, dict) and default and isinstance(value, dict):
            found[name] = _beyond(value, default)
        elif default is MISSING or value != default:
            found[name] = value
    return {name: value for name, value in found.items() if value != {} or name not in defaults}


def _defaults() -> Iterator[tuple[str, Any]]:
    for each in fields(RunConfig):
        if each.default is not MISSING:
            yield each.name, each.default
        elif each.default_factory is not MISSING:
            made = each.default_factory()
            yield each.name, asdict(made) if isinstance(made, NoiseScaleConfig) else made


DEFAULTS = dict(_defaults())
"""What a missing key means."""
ADDED: Node = {
    "privacy": {
        "bands": 1,
        "quantum": None,
        "bits": 32,
        "accuracy_noise": None,
        "deployment_population": None,
        "deployment_cohort": None,
    },
    "server_optimizer": {"groups": None},
    "learning_rate": {"max_growth": None, "decay_share": 0.2, "examples": None},
    "time_model": {"speeds": None},
    "controller": {"time_model": {"speeds": None}},
}
"""The same of keys that parts have had only since a later version."""
ADDED_TO: dict[str, Node] = {
    f"fedbatch.privacy.Example{who}": {"clip_quantile": None, "clip_rate": 0.2, "count_noise": None}
    for who in ("Local", "Distributed", "Central")
}
"""The same of keys that one part of a group has had from the start, and these only since a later version."""


def parse(values: Mapping[str, Any]) -> RunConfig:
    """A checked `RunConfig` from plain values.

    Raises:
        ConfigError: an unknown key, a wrong type or values that do not go together.
    """
    if isinstance(version := values.get("version"), int) and version > VERSION:
        raise ConfigError(f"the config was written by a newer fedbatch (version {version}); update fedbatch")
    known = [f.name for f in fields(RunConfig)]
    for name in values:
        if name not in known:
            raise ConfigError(f"unknown key {name!r}{did_you_mean(name, known)}")
    if lost := [name for name in known if name not in values and name not in DEFAULTS]:
        raise ConfigError(f"{lost[0]} is missing from the config; see conf/config.yaml")
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), _public(values)))
    except OmegaConfBaseException as error:
        raise ConfigError(_refusal(str(getattr(error, "full_key", "")), values, error)) from error
    assert isinstance(config, RunConfig)
    check(config)
    return config


def _refusal(key: str, values: Mapping[str, Any], error: OmegaConfBaseException) -> str:
    """What is wrong with the value of a key like ``noise_scale.every``."""
    value: Any = values
    hint: Any = RunConfig
    for name in key.split("."):
        if not (isinstance(value, Mapping) and name in value and is_dataclass(hint)):
            return f"{key or 'config'}: {str(error).splitlines()[0]}"
        value, hint = value[name], get_type_hints(hint)[name]
    return f"{key} must be {in_words(hint)} (got {'null' if value is None else repr(value)})"


@lru_cache(maxsize=4)
def from_json(text: str) -> RunConfig:
    """The config that `RunConfig.to_json` wrote. Kept, because both ends of a run in one process ask several times."""
    return parse(json.loads(text))
