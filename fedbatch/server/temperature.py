"""After the last round: the temperature, and how calibrated predictions are without and with it."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedbatch.metrics.evaluate import labelled_logits, logits_of
from fedbatch.metrics.report import Calibration, Pool, Predicted
from fedbatch.metrics.temperature import bisect
from fedbatch.privacy.ledger import LedgerEntry
from fedbatch.privacy.plan import PrivacyPlan
from fedbatch.privacy.randomness import Floats
from fedbatch.privacy.release import slope_name
from fedbatch.server.charging import BudgetSpent, how_computed, released_once, run_nonce
from fedbatch.server.held_out import HeldOut, noised_slope, slope_plans, slopes_of
from fedbatch.server.server import Server
from fedbatch.server.state import ServerState
from fedbatch.wire.held_out import SlopePlan, Sums

log = logging.getLogger("fedbatch")
Columns = dict[str, Any]


@dataclass(frozen=True)
class Fitted:
    """A temperature for all, or one for each client.

    Attributes:
        values: (P,) of the clients.
        shared: whether they are all the same, so that the test split can be scaled too.
    """

    values: Floats
    shared: bool

    def summary(self) -> dict[str, Any]:
        """Plain values: the one, or the median and the extremes."""
        if self.shared:
            return {"temperature": float(self.values[0])}
        low, middle, high = np.percentile(self.values, [0, 50, 100])
        return {"temperature": float(middle), "lowest": float(low), "highest": float(high), "clients": len(self.values)}


def test_pool(server: Server, temperature: float = 1.0) -> Predicted:
    """The server's test split, its logits in memory, at a temperature."""
    task = server.task
    logits, labels = labelled_logits(logits_of(server.optimizer.model, task.test_x), task.test_y)
    return Predicted(logits / temperature, labels)


def finish(server: Server, state: ServerState) -> tuple[ServerState, dict[str, Any]]:
    """The state with what a private temperature has cost, and the summary's entry: scores ``before`` and ``after``.

    Temperatures are fitted on half of what each client holds out, private ones on all of it. Scores are of the test
    split, and without privacy of the other half. Empty where neither scores nor a temperature are asked for.
    """
    task = server.task
    if task.calibration is None and task.temperature is None:
        return state, {}
    calibration = task.calibration or Calibration()
    if task.temperature is None:
        return state, {"before": _scores(server, state, calibration, None)}
    state, fitted = fit(server, state)
    before, after = (_scores(server, state, calibration, chosen) for chosen in (None, fitted))
    return state, {**fitted.summary(), "kind": type(task.temperature).__name__, "before": before, "after": after}


def fit(server: Server, state: ServerState) -> tuple[ServerState, Fitted]:
    """The run's temperature, charged where there is privacy."""
    scaling: Any = server.task.temperature
    privacy, clients = server.task.privacy, len(server.hosts.clients)
    if scaling.is_private:
        assert privacy is not None  # refused before the run
        state, temperature = fit_privately(server, privacy, state, float(scaling.clip_norm))
        return state, Fitted(np.full(clients, temperature), shared=True)
    found = scaling.fit(HeldOut(server, state, "fit"))
    return state, Fitted(np.broadcast_to(found, clients).astype(np.float64), shared=np.ndim(found) == 0)


def fit_privately(
    server: Server, privacy: PrivacyPlan, state: ServerState, clip_norm: float
) -> tuple[ServerState, float]:
    """The temperature from noised slopes, each charged before it is asked for."""
    ledger, nonce = state.ledger, run_nonce(server, privacy, state)
    how = how_computed(server, nonce)

    def slope(inverse: float) -> float:
        nonlocal ledger

        def ask(due: LedgerEntry) -> tuple[list[Sums], dict[int, SlopePlan]]:
            plans = slope_plans(server, state, inverse, clip_norm, due.attempt, nonce)
            return slopes_of(server, plans), plans

        due = privacy.temperature_release(state.round, slope_name(state.params, inverse), how)
        ledger, _, answers, plans = released_once(server, privacy, replace(state, ledger=ledger), due, ask)
        return noised_slope(server, privacy, plans, answers)

    try:
        temperature = bisect(slope)
    except BudgetSpent as reason:  # after rounds that were charged twice
        log.warning("temperature=private: %s; the temperature stays 1", reason)
        temperature = 1.0
    return replace(state, ledger=ledger), temperature


def _scores(server: Server, state: ServerState, calibration: Calibration, fitted: Fitted | None) -> dict[str, Columns]:
    pools: dict[str, Pool] = {}
    if fitted is None or fitted.shared:
        pools["test"] = test_pool(server, 1.0 if fitted is None else float(fitted.values[0]))
    if server.task.config.client_holdout and server.task.privacy is None:
        part = "all" if server.task.temperature is None else "measure"
        pools["held_out"] = HeldOut(server, state, part, None if fitted is None else fitted.values)
    return {name: calibration.columns(pool) | {"bins": calibration.diagram(pool)} for name, pool in pools.items()}
