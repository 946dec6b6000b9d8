"""The config of an audit: a run's own mechanism and schedule, on data that are all canaries."""

import math
from dataclasses import asdict
from typing import Any

from fedbatch.config.schema import Node, RunConfig, parse
from fedbatch.core.errors import ConfigError
from fedbatch.privacy.plan import PrivacyPlan

CANARIES = 1000
LENGTH = 1e6
"""Of a canary's gradient, in clip norms: whatever the clip norm becomes, it is longer."""
PLAIN: dict[str, Any] = {
    "model": {"_target_": "fedbatch.auditing.canaries.model"},
    "loss": {"_target_": "fedbatch.auditing.canaries.ConstantGradient"},
    "server_optimizer": {"_target_": "torch.optim.SGD", "lr": 1.0},
    "learning_rate": {"_target_": "fedbatch.batch.LearningRate", "rule": "constant"},
    "runtime": {"_target_": "fedbatch.runtime.Local"},
    "nodes": 1,
    "device": "cpu",
    "client_holdout": 0.0,
    "evaluate_every_rounds": 0,
    "checkpoint_every_rounds": 0,
    "target_value": None,
    "patience": None,
    "keep_best": False,
    "report": "none",
    "resume": None,
    "overwrite": False,
    **{part: {} for part in ("task", "augment", "metrics", "temperature", "aggregator", "compression")},
    **{part: {} for part in ("faults", "tracker", "active", "availability", "sampler", "asynchronous")},
}
"""What is the same in every audit: parameters that tell each release, and nothing beside the releases."""


def planted(config: RunConfig, plan: PrivacyPlan, run_dir: str, canaries: int = CANARIES) -> RunConfig:
    """The run with canaries for its units, at the same sample rates and with the same noise multipliers.

    Where single examples are protected, there are as few clients as the guarantee allows, so that no noise hides a
    canary but that which is accounted.

    Args:
        config: the run.
        plan: its mechanism.
        run_dir: for the audit.
        canaries: about how many.

    Raises:
        ConfigError: the run has no noise to audit.
    """
    if not plan.calibration.first_noise:
        raise ConfigError("audit: privacy.noise_multiplier is 0, so that nothing is claimed")
    if plan.terms.deployment is not None:
        raise ConfigError(
            "audit: the run simulates a larger deployment, whose noise it does not have; set "
            "privacy.deployment_population=null and deployment_cohort=null"
        )
    values = asdict(config) | PLAIN | {"run_dir": run_dir}
    values["time_model"].pop("speeds", None)  # of the run's clients, who are others here
    mechanism = plan.mechanism
    fewest = 1 / plan.delta - 1
    if mechanism.clips_examples:
        honest = max(1, round(1 / mechanism.noise_shares(1)))  # clients whose noise adds up to what is accounted
        first = plan.terms.first
        clients = max(honest, round(config.population * honest / first.cohort_size))
        rate = plan.terms.sample_rate(first)
        batch = max(1, round(rate * canaries / clients))
        examples = max(1, round(batch / rate))
        resized = _resized(values, honest / first.cohort_size, clients, examples / float(plan.terms.sizes.mean()))
        total = clients * examples
    else:
        clients = total = min(canaries, math.floor(fewest))
        resized = _resized(values, clients / config.population, clients, 0.0)
        honest = 0
    resized["population"] = clients
    resized["partitioner"] = {
        "_target_": "fedbatch.data.from_flower",
        "kind": "IidPartitioner",
        "num_partitions": clients,
        "seed": config.seed,
    }
    resized["privacy"] = _as_calibrated(resized["privacy"], plan, honest)
    length = LENGTH * mechanism.clip_norm
    resized["dataset"] = {
        "_target_": "fedbatch.auditing.canaries.dataset",
        "canaries": total,
        "length": length,
        "seed": config.seed,
    }
    return parse(resized)


def _as_calibrated(privacy: Node, plan: PrivacyPlan, honest: int) -> Node:
    """The mechanism with the noise of the run, and shares of it among so many clients as there are."""
    fixed = plan.calibration.order is None
    noise = {"noise_multiplier": plan.calibration.first_noise, "delta": plan.delta, "secret_file": None}
    target = {"target_epsilon": None} if fixed else {}  # an adaptive schedule has the budget for its claim
    shares: Node = {"min_clients": honest, "colluders": 0} if plan.mechanism.shares_noise else {}
    shares |= {"secure_aggregation": "simulated"} if plan.mechanism.masks else {}  # masks cancel: the sum is the same
    bands = {"bands": plan.terms.bands} if "bands" in privacy else {}
    widest = {"bits": 48} if plan.mechanism.lattice else {}  # other sums must not wrap around where the run's do not
    return privacy | noise | target | shares | bands | widest


def _resized(node: Node, of_cohorts: float, population: int, of_batches: float) -> Node:
    """The config with every cohort, and every client batch, at its share of what there is now."""

    def resized(key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: resized(name, each) for name, each in value.items()}
        if isinstance(value, int) and key.endswith("cohort_size"):
            return min(population, max(1, round(value * of_cohorts)))
        if isinstance(value, int) and key == "client_batch_size":
            return max(1, round(value * of_batches)) if of_batches else None
        return value

    return {name: resized(name, value) for name, value in node.items()}
