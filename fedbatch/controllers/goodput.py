"""Small or large by what each costs: the phase with the highest goodput."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fedbatch.batch.time_model import TimeModel
from fedbatch.controllers.phase import ControlState, Observation, Phase

COSTS = ("rounds", "examples", "bytes", "seconds")
ALL_NOISE = 1e12  # for an infinite noise scale, where goodput is batch over cost


class Goodput:
    """The phase that makes the most progress for its cost (our design; the word is Pollux's, Qiao et al. 2021).

    A step on a batch B, at the learning rate that suits it, makes 1 / (1 + N / B) of the progress of a step without
    noise, N the noise scale (McCandlish et al. 2018, sec. 2.2). Goodput is that over the cost of a round: as N rises,
    large batches become worth their price. A change needs ``margin`` times the goodput at the estimate of N, and no
    loss anywhere in its interval.

    Where clients differ, N overstates what more examples of the same clients bring (docs/noise_scale.md); under privacy
    it is the batch at which all noise equals the gradient, and progress away from that batch is approximate.

    Args:
        phases: to choose from, by any key; the run starts with the first. Each needs its client_batch_size.
        cost: what is to be saved: "rounds", "examples", "bytes" or "seconds", those of one gradient a client, also
            where clients do local steps.
        time_model: of the seconds of a round, which are taken to be those of median clients.
        margin: at least 1.
        settle_rounds: rounds after a change during which nothing is decided.
        budget: what the whole run may cost, in examples, models sent by clients ("bytes"), seconds or rounds; it then
            ends the run, and the learning rate's decay is over it. None is not told.
        finish: share of the budget that is kept for its end, in [0, 1).
    """

    adaptive = True

    def __init__(
        self,
        phases: Mapping[str, Phase],
        cost: str,
        time_model: TimeModel,
        margin: float = 1.05,
        settle_rounds: int = 20,
        budget: float | None = None,
        finish: float = 0.3,
    ):
        if cost not in COSTS:
            raise ValueError(f"controller.cost must be one of {', '.join(COSTS)} (got {cost!r})")
        if margin < 1 or settle_rounds < 0:
            raise ValueError("controller: margin must be at least 1, settle_rounds must not be negative")
        if (budget is not None and not budget > 0) or not 0 <= finish < 1:
            raise ValueError("controller: budget must be > 0 or null, finish in [0, 1)")
        names = [phase.name for phase in phases.values()]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"controller.phases: give at least one, each with a name of its own (got {names})")
        for key, phase in phases.items():
            if phase.client_batch_size is None:
                raise ValueError(f"controller.phases.{key}.client_batch_size: set it; costs depend on it")
        self.phases = tuple(phases.values())
        self._cost, self._time_model = cost, time_model
        self._margin, self._settle_rounds = margin, settle_rounds
        self._budget, self._finish = budget, finish

    def start(self) -> ControlState:
        """The first phase, from which the noise scale is measured."""
        return ControlState(self.phases[0].name)

    def next(self, state: ControlState, seen: Observation) -> ControlState:
        """Change to the best phase if that is worth it and sure, or to the next larger one at the end of a budget."""
        if self._budget is None:
            return self._greedy(state, seen)
        now = next(phase for phase in self.phases if phase.name == state.phase)
        spent = sum(state.memory) + self.cost(now, seen.model_bytes)
        share = spent / self._budget
        state = replace(state, memory=(spent,), share=share)
        if share < 1 - self._finish:
            return replace(self._greedy(state, seen), memory=(spent,), share=share)
        rising = sorted(self.phases, key=_examples)
        step = 1 + int((len(rising) - 1) * (share - 1 + self._finish) / self._finish) if self._finish else 0
        target = rising[min(max(step, rising.index(now)), len(rising) - 1)]
        if target is now:
            return state
        reason = f"{share:.0%} of the budget is spent: noise is averaged out in larger batches"
        return ControlState(target.name, None, seen.round + 1, None, reason, (spent,), share=share)

    def _greedy(self, state: ControlState, seen: Observation) -> ControlState:
        if seen.noise_scale is None or seen.round + 1 - state.since_round < self._settle_rounds:
            return state
        now = next(phase for phase in self.phases if phase.name == state.phase)

        def size(phase: Phase) -> float:
            return _examples(phase) if seen.unit == "examples" else float(phase.cohort_size)

        def gain(phase: Phase, noise: float) -> float:
            noise = min(noise, ALL_NOISE)
            steps = (1 + noise / size(now)) / (1 + noise / size(phase))
            return steps * self.cost(now, seen.model_bytes) / self.cost(phase, seen.model_bytes)

        noise = seen.noise_scale
        best = max(self.phases, key=lambda phase: gain(phase, noise.value))
        promised = gain(best, noise.value)
        if promised < self._margin or min(gain(best, noise.low), gain(best, noise.high)) < 1 or best is now:
            return state
        bounds = f"noise scale {noise.value:.3g} [{noise.low:.3g}, {noise.high:.3g}]"
        reason = f"{bounds}: {best.name} makes {promised:.2f} times the progress for its {self._cost}"
        held = noise.value if noise.value < ALL_NOISE else None
        return ControlState(best.name, None, seen.round + 1, held, reason)

    def cost(self, phase: Phase, model_bytes: int) -> float:
        """Of a round: 1, examples, clients (each sends one model), or seconds."""
        if self._cost == "seconds":
            clients, each = np.zeros(1, np.int64), np.array([phase.client_batch_size])
            return self._time_model.typical().round_seconds(0, clients, each, model_bytes, model_bytes)
        return {"rounds": 1.0, "examples": _examples(phase), "bytes": float(phase.cohort_size)}[self._cost]


def _examples(phase: Phase) -> float:
    return float(phase.cohort_size * (phase.client_batch_size or 1))
