"""A controller played through rounds of which it sees nothing but their number."""

from fedbatch.controllers import Observation


def played(controller, rounds, by="batch"):
    """Global batch, name or rate of every round."""
    phases, state, found = {p.name: p for p in controller.phases}, controller.start(), []
    for round_ in range(rounds):
        phase = phases[state.phase]
        batch = phase.cohort_size * (phase.client_batch_size or 1)
        found.append({"batch": batch, "name": phase.name, "lr": phase.lr}[by])
        state = controller.next(state, Observation(round_, 0.0, None, "examples", 0))
    return found
