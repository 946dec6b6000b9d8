"""One phase for the whole run."""

from dataclasses import dataclass

from fedbatch.controllers.phase import ControlState, Observation, Phase


@dataclass(frozen=True)
class Fixed:
    """One phase for the whole run."""

    phase: Phase

    adaptive = False

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The one phase."""
        return (self.phase,)

    def start(self) -> ControlState:
        """The state before round 0."""
        return ControlState(self.phase.name)

    def next(self, state: ControlState, seen: Observation) -> ControlState:
        """Nothing ever changes."""
        return state
