"""Phases that begin at fixed rounds; doubling cohorts are one such schedule."""

from collections.abc import Mapping

from fedbatch.controllers.phase import ControlState, Observation, Phase


class Schedule:
    """Phases that begin at fixed rounds.

    Args:
        phases: the phases by any key.
        starts: first round of each, by the same keys; one must be 0.
    """

    adaptive = False

    def __init__(self, phases: Mapping[str, Phase], starts: Mapping[str, int]):
        if set(phases) != set(starts) or 0 not in starts.values() or len(set(starts.values())) < len(starts):
            raise ValueError(
                f"controller.starts: give each phase its own first round, one of them 0 (got {dict(starts)})"
            )
        self._starts = {starts[key]: phases[key] for key in sorted(starts, key=lambda key: starts[key])}
        self.phases = tuple(self._starts.values())

    def start(self) -> ControlState:
        """The state before round 0."""
        return ControlState(self._starts[0].name)

    def next(self, state: ControlState, seen: Observation) -> ControlState:
        """The phase that starts at the next round, if one does."""
        phase = self._starts.get(seen.round + 1)
        if phase is None or phase.name == state.phase:
            return state
        value = seen.noise_scale.value if seen.noise_scale else None
        return ControlState(phase.name, None, seen.round + 1, value, f"scheduled for round {seen.round + 1}")


def doubling(
    *, cohort_size: int, client_batch_size: int | None, every_rounds: int, times: int, double: str
) -> Schedule:
    """A schedule that doubles the cohort or the client batch every so many rounds (Charles et al. 2021; Smith 2017).

    Args:
        cohort_size: clients a round at the start.
        client_batch_size: examples a client at the start; None for all, which cannot be doubled.
        every_rounds: rounds between doublings, >= 1.
        times: number of doublings.
        double: "cohort" or "batch".
    """
    if every_rounds < 1:
        raise ValueError("controller: every_rounds must be at least 1")
    sizes = doubled(cohort_size, client_batch_size, times, double)
    phases = {f"x{2**i}": Phase(f"x{2**i}", c, b) for i, (c, b) in enumerate(sizes)}
    return Schedule(phases, {name: i * every_rounds for i, name in enumerate(phases)})


def doubled(cohort_size: int, client_batch_size: int | None, times: int, double: str) -> list[tuple[int, int | None]]:
    """Cohort and client batch, one of them doubled 0 to ``times`` times; see `doubling`."""
    if double not in ("cohort", "batch") or (double == "batch" and not client_batch_size):
        raise ValueError("controller: double must be cohort or batch (of a given size)")
    if times < 0:
        raise ValueError(f"controller: times must not be negative (got {times})")
    factors = [(2**i, 1) if double == "cohort" else (1, 2**i) for i in range(times + 1)]
    return [(cohort_size * c, client_batch_size and client_batch_size * b) for c, b in factors]
