"""The phase that makes the most progress for its cost, by the gain curve of the server's own optimizer."""

from collections.abc import Mapping
from dataclasses import replace

from fedbatch.batch.time_model import TimeModel
from fedbatch.controllers.goodput import Goodput
from fedbatch.controllers.phase import ControlState, Observation, Phase


class Gain:
    """Goodput, with the gain curve in the place of the formula for SGD (our design).

    The formula says that a step on a batch B makes 1 / (1 + N / B) of the progress of a step without noise, N the noise
    scale. The gain curve is e = e_inf / (1 + B_half / B), measured of the steps that the optimizer in use takes
    (`fedbatch.batch.gain`). So B_half stands for N in all that `Goodput` decides, and in the rule of the learning rate.

    Needs ``noise_scale.groups``; decides in rounds in which B_half has an interval.

    Args:
        phases: to choose from, by any key; the run starts with the first. Each needs its client_batch_size.
        cost: what is to be saved: "rounds", "examples", "bytes" or "seconds", as of `Goodput`.
        time_model: of the seconds of a round.
        margin: at least 1; a change must promise so many times the progress for its cost.
        settle_rounds: rounds after a change during which nothing is decided.
    """

    adaptive = True
    needs_groups = True

    def __init__(
        self,
        phases: Mapping[str, Phase],
        cost: str,
        time_model: TimeModel,
        margin: float = 1.05,
        settle_rounds: int = 20,
    ):
        self._goodput = Goodput(phases, cost, time_model, margin, settle_rounds)
        self.phases = self._goodput.phases

    def start(self) -> ControlState:
        """The first phase, from which the gain curve is measured."""
        return self._goodput.start()

    def next(self, state: ControlState, seen: Observation) -> ControlState:
        """Change to the best phase if that is worth it and sure."""
        after = self._goodput.next(state, replace(seen, noise_scale=seen.half))
        if after is state:
            return state
        return replace(after, reason=after.reason.replace("noise scale", "B_half"))
