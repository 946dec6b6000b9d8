"""What it costs to release the best of several private runs (Papernot and Steinke 2022)."""

from collections.abc import Sequence

from fedbatch.privacy import accounting
from fedbatch.privacy.accounting import PhaseSpec


def epsilon_of_best(phases: Sequence[PhaseSpec], mean_runs: float, delta: float) -> float:
    """Epsilon of the best of several runs of a schedule, whose number was drawn beforehand and is kept a secret.

    The number of runs is geometric, 1, 2 ... with mean ``mean_runs``; the best run alone is released, by a score that
    may look at private data (Papernot and Steinke 2022). For a number that is fixed nothing like it holds.

    Args:
        phases: of one run, as in `epsilon`.
        mean_runs: > 1.
        delta: in (0, 1).

    >>> one, best = accounting.epsilon([(0.01, 1.0, 1000)], 1e-5), epsilon_of_best([(0.01, 1.0, 1000)], 10, 1e-5)
    >>> one < best < 10 * one
    True
    """
    accounting.check(phases, delta, "rdp")
    if not mean_runs > 1:
        raise ValueError(f"mean_runs must be > 1 (got {mean_runs})")
    spent = [(q, sigma, steps) for q, sigma, steps in phases if steps and q]
    if not spent or any(sigma == 0 for _, sigma, _ in spent):
        return float("inf") if spent else 0.0
    accounting.library()
    from dp_accounting.dp_event import RepeatAndSelectDpEvent

    several = RepeatAndSelectDpEvent(accounting.event(spent), mean_runs, 1.0)
    return max(0.0, float(accounting.accountant_of("rdp").compose(several).get_epsilon(delta)))
