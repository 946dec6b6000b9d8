"""`fedbatch.advise`: which batch to take for each cost, from a short probe of a config."""

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from fedbatch.advising.probe import probed
from fedbatch.api import configured, planned_overrides, quiet, unused
from fedbatch.config import given
from fedbatch.config.schema import RunConfig
from fedbatch.core.errors import ConfigError
from fedbatch.data.holdout import HoldoutPartition
from fedbatch.results.advice import Advice, choose, rule_of
from fedbatch.results.costs import NAMES, Coefficients, costs_of
from fedbatch.results.critical import critical
from fedbatch.results.critical_rows import read
from fedbatch.results.ways import ways_of
from fedbatch.setup import task, validate

REPLACED = ("controller", "tracker")
"""Groups of a config for which the probe has a choice of its own, so that their keys are left out."""
FULL = 0.95
"""Share of a client batch that clients have to be able to fill, on average."""


def advise(
    *overrides: str, minutes: float = 2.0, costs: Mapping[str, Coefficients] | None = None, **values: Any
) -> Advice:
    """What ``fedbatch advise OVERRIDES`` says: the batch, the clients and the learning rate to take, cost by cost.

    A short run of the config is done at its own small batch, with at least 8 clients, and all other batches are
    predicted from it by `fedbatch.critical`. No number goes beyond the loss that this run reaches.

    Args:
        overrides: as in `fedbatch.run`.
        minutes: that the probe may take, about. It has no more rounds than the config.
        costs: of your own, by name: what a round, a client in a round, an example and a byte cost.
        values: as in `fedbatch.run`.

    Raises:
        ConfigError: what the run itself would refuse, minutes or costs that are wrong, a config that learns actively
            or asynchronously, or a loss that does not fall.
        RunFailedError: the probe cannot go on.

    >>> advise("model=cnn", minutes=1).rows[0].batch              # doctest: +SKIP
    256.0
    """
    if not 0 < minutes < math.inf:
        raise ConfigError(f"minutes must be positive (got {minutes:g})")
    checked = checked_costs(costs or {})
    asked = _config(overrides, values)
    if asked.active:
        raise ConfigError("active: labels that come during a run change what a batch buys; add active=none")
    if asked.asynchronous:
        raise ConfigError("asynchronous: seconds are predicted for synchronous rounds; add asynchronous=none")
    private = bool(asked.privacy)
    apart = {*REPLACED, *(["privacy"] if private else [])}
    others = [each for each in overrides if each.lstrip("+~").partition("=")[0].partition(".")[0] not in apart]
    others += ["privacy=none"] if private else []  # and without what it brings: large batches, other rates
    kept = {key: value for key, value in values.items() if key.partition(".")[0] not in apart}
    plain = {key: value for key, value in kept.items() if key not in given.sorted_out(kept)[0]}
    config = _config((*others, "controller=fixed"), kept)
    most_each = _checked(config, kept)
    folder = _folder(config, overrides, values)
    probe = probed(config, others, kept, folder, minutes)
    found = critical(probe.folder)
    ways = ways_of(found, config.client_batch_size, most_each)
    rule, lr = rule_of(config.server_optimizer), probe.config["server_optimizer"].get("lr")
    # After local steps a server's rate of much over 1 overshoots: no more than what the config itself allows.
    cap = float(config.learning_rate.get("max_factor", 1.0)) if math.isnan(found.drift) else math.inf
    rows = [choose(found, cost, ways, rule, cap) for cost in costs_of(probe.config, read(probe.folder), checked)]
    rest = planned_overrides(tuple(others), plain, is_fixed=False)
    return Advice(
        run=probe.folder,
        found=found,
        rows=tuple(row for row in rows if not math.isnan(row.amount)),
        lr=lr if isinstance(lr, int | float) else None,
        rule=rule,
        cap=cap,
        notes=probe.notes,
        doubts=found.doubts,
        private=private,
        overrides=tuple(each for each in rest if each.lstrip("+").partition("=")[0] != "server_optimizer.lr"),
    )


def checked_costs(costs: Mapping[str, Coefficients]) -> Mapping[str, Coefficients]:
    """Costs of a user's own.

    Raises:
        ConfigError: a name that is taken, or numbers that cost nothing or are not four.
    """
    for name, rates in costs.items():
        if name in NAMES or not name.isidentifier():
            raise ConfigError(
                f"cost: give it a name of its own, a word that is none of {', '.join(NAMES)} (got {name!r})"
            )
        if len(rates) != 4 or not all(0 <= rate < math.inf for rate in rates) or not any(rates):
            raise ConfigError(
                f"cost {name}: give four numbers, of a round, a client, an example and a byte, none negative and not "
                f"all 0, e.g. {name}=1,0.1,0,1e-6"
            )
    return costs


def _config(overrides: tuple[str, ...], values: Mapping[str, Any]) -> RunConfig:
    named = {each.lstrip("+~").partition("=")[0] for each in overrides} | set(values)
    if "resume" in named:
        raise ConfigError("resume: a probe starts anew; leave it out, or ask fedbatch critical of the run there")
    objects, plain = given.sorted_out(values)
    with quiet(True), given.kept(objects):
        return configured(overrides, plain)


def _checked(config: RunConfig, values: Mapping[str, Any]) -> float:
    """The examples that clients have, after all checks that need data."""
    with quiet(True), given.kept(given.sorted_out(values)[0]):
        try:
            validate.validate(config)
            return fillable(validate.data(config.to_json())[1])
        finally:
            task.forget()


def fillable(partition: HoldoutPartition) -> float:
    """Examples of a client that are there, for all or nearly: clients have 95 % of so many, on average."""
    sizes = partition.sizes(np.arange(len(partition), dtype=np.int64)).astype(np.float64)
    asked = np.unique(np.concatenate([sizes, 2.0 ** np.arange(0, math.floor(math.log2(sizes.max())) + 1)]))
    filled = [each for each in asked if np.minimum(sizes, each).mean() >= FULL * each]
    return max(filled, default=1.0)


def _folder(config: RunConfig, overrides: tuple[str, ...], values: Mapping[str, Any]) -> Path:
    """Where the probe's runs go: the run folder that is asked for, or one that is new."""
    asked = "run_dir" in values or any(each.partition("=")[0] == "run_dir" for each in overrides)
    if asked and Path(config.run_dir).exists():
        raise ConfigError(f"run_dir: {config.run_dir} is there; give the probe another folder")
    return Path(config.run_dir) if asked else unused(Path("runs", f"advise_{datetime.now():%Y-%m-%d_%H-%M-%S}"))
