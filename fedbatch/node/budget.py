"""The node's own account: what it has released about its clients, to whomever, and when it answers no more.

A server that keeps to the protocol asks once for each round. Another one may ask again and again, or in the name of
other runs, and average the noise away. So a node whose owner sets ``max_epsilon`` writes down each release before it
makes it, on its own disk, and refuses what would pass the budget. It counts all runs and all its clients together, for
another config may deal the same examples to other clients. Draws come
from a secret of the node's own, for whoever knows the secret has no barrier.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedbatch.config.schema import RunConfig, from_json
from fedbatch.core import private_file
from fedbatch.core.errors import ConfigError
from fedbatch.privacy import accounting, ledger
from fedbatch.privacy.calibrate import order_that_lasts_longest
from fedbatch.privacy.ledger import Ledger, LedgerEntry
from fedbatch.privacy.randomness import fingerprint
from fedbatch.privacy.release import slope_key
from fedbatch.setup.task import Task
from fedbatch.wire.check import MessageError
from fedbatch.wire.held_out import SlopePlan
from fedbatch.wire.messages import PrivatePlan

log = logging.getLogger("fedbatch")
KEYS = ("max_epsilon", "ledger", "secret_file")


@dataclass(frozen=True)
class Budget:
    """What the owner of a node allows.

    Attributes:
        max_epsilon: for each example of this node, over all runs.
        delta: of that epsilon.
        file: the node's ledger.
    """

    max_epsilon: float
    delta: float
    file: Path


def budget_of(node_config: Mapping[str, Any]) -> Budget | None:
    """The budget in node-config; None without ``max_epsilon``.

    Raises:
        ConfigError: it is incomplete, or no number.
    """
    if "max_epsilon" not in node_config:
        return None
    if missing := [key for key in KEYS if key not in node_config]:
        raise ConfigError(f"node-config max_epsilon: needs {' and '.join(missing)} too, paths on this node's own disk")
    try:
        most, delta = float(node_config["max_epsilon"]), float(node_config.get("delta", 1e-5))
    except ValueError as error:
        raise ConfigError(f"node-config max_epsilon, delta: {error}") from error
    if not (0 < most < float("inf") and 0 < delta < 1):
        raise ConfigError(f"node-config: need max_epsilon > 0 and delta in (0, 1) (got {most:g} and {delta:g})")
    return Budget(most, delta, Path(str(node_config["ledger"])))


def with_own_secret(text: str, node_config: Mapping[str, Any]) -> str:
    """The config as JSON, with the node's own secret for the noise of its clients.

    Raises:
        ConfigError: the run has no noise of the clients' own, so that no budget of a node could be kept.
    """
    config: RunConfig = from_json(text)
    if not config.privacy:
        raise ConfigError("node-config max_epsilon: the run has no privacy, and this node answers private runs alone")
    privacy = {**config.privacy, "secret_file": str(node_config["secret_file"])}
    return replace(config, privacy=privacy).to_json()


def admit(budget: Budget, plan: PrivatePlan | SlopePlan, task: Task) -> None:
    """Write a release down before it is made. One that was asked for before is charged again, as everybody's.

    The same question draws the same sample, but noise of its own where anything rounds differently. So what is asked
    for again is a release in which everyone takes part.

    Raises:
        MessageError: the release would pass the budget, or has no noise of the clients' own.
    """
    known, due = ledger.read(budget.file), release_of(plan, task)
    if any((r.round, r.params, r.attempt) == (due.round, due.params, due.attempt) for r in known):
        due = replace(due, sample_rate=1.0)
    due = replace(due, how=str(len(known)))  # no two lines are the same release
    spent = Ledger.of(1, [*known, due])
    total = accounting.worst_epsilon(spent.schedules(), budget.delta, "rdp", order_of(budget, [*known, due][0]))
    if total > budget.max_epsilon:
        raise MessageError(
            f"this node's own budget is spent: with this release epsilon would be {total:.3g}, and its owner "
            f"allows {budget.max_epsilon:g} (node-config max_epsilon)"
        )
    private_file.make(budget.file)
    if problem := private_file.exposed(budget.file):
        log.warning("node-config ledger: %s", problem)
    ledger.write(budget.file, due)


def order_of(budget: Budget, first: LedgerEntry) -> float:
    """The Renyi order of the filter, fixed by the first release: what is asked for later follows from what was seen.

    Whole, for of some noise only whole orders are proven.
    """
    one = accounting.divergences([(first.sample_rate, first.noise_multiplier, first.steps)])
    best = order_that_lasts_longest(one, budget.max_epsilon, budget.delta)
    return max((order for order in accounting.whole_orders() if order <= best), default=2.0)


def release_of(plan: PrivatePlan | SlopePlan, task: Task) -> LedgerEntry:
    """What a reply reveals to whoever sees it alone: a server that does not add it to others' as it should.

    Raises:
        MessageError: the reply has no noise of its own.
    """
    privacy, name = task.privacy, task.config.identity()
    assert privacy is not None
    if isinstance(plan, SlopePlan):
        rate, noise, steps, key = 1.0, privacy.question_noise(plan.statistic), 1, slope_key(plan)[1]
    else:
        phase = replace(task.phase(plan.phase), cohort_size=plan.cohort_size)
        rate, noise, steps = privacy.terms.draw_rate(phase), privacy.noise_multiplier(phase), privacy.steps(phase)
        key = fingerprint(plan.params)
    mechanism = privacy.mechanism
    own = 0.0 if mechanism.server_adds_noise else noise * mechanism.noise_shares(1) ** 0.5
    if not own:
        raise MessageError(
            "this node's owner keeps a budget of its own (node-config max_epsilon), but in this run the server adds "
            "the noise; use privacy=example_local"
        )
    return LedgerEntry(plan.round, f"{name}/{plan.nonce}/{key}", rate, own, steps, attempt=plan.attempt)
