"""When what one run says of other batches is not to be trusted."""

from dataclasses import dataclass

from fedbatch.batch.one_run import ToLoss

CLIMB, JUMP, SATURATED = 0.3, 0.05, 1 / 3
CLIENTS, NOISELESS_STEPS = 8, 30
TOO_FAST = "the learning rate is probably too high"
"""With which the doubt of the rate begins."""


@dataclass(frozen=True)
class Evidence:
    """What a run says of itself besides its sums.

    Attributes:
        clients: of a round, its median.
        climb: how far the smoothed loss rose above its lowest, as a share of the way that it fell.
        jump: standard deviation of the loss on fixed examples between evaluations, as a share of the same way.
        drift: share of client drift in the noise of a client's gradient, in [0, 1]; None where it was not measured.
        mixed: whether clients may hold different data.
        everybody: whether all clients take part in every round.
    """

    clients: float
    climb: float
    jump: float
    drift: float | None = None
    mixed: bool = False
    everybody: bool = False

    @property
    def drifts(self) -> bool:
        """Whether clients' drift is most of the noise of the mean."""
        return not self.everybody and self.drift is not None and self.drift > 0.5


def doubts(goal: ToLoss, evidence: Evidence) -> tuple[str, ...]:
    """One sentence for each reason to doubt what a run says up to ``goal``, with what to do.

    The rate: a batch is judged at the learning rate that suits it. At twice that rate, gradients that only swing from
    side to side count as progress, and S_min comes out several times too large.
    """
    found = []
    if evidence.climb > CLIMB or evidence.jump > JUMP:
        how = (
            f"climbs back by {evidence.climb:.0%} of its way"
            if evidence.climb > CLIMB
            else f"jumps by {evidence.jump:.0%} of its way between evaluations"
        )
        found.append(
            f"{TOO_FAST} for this batch: the loss {how}; S_min is then too large, so run "
            "again at half the rate and compare"
        )
    if goal.saturated > SATURATED:
        found.append(
            f"in windows with {goal.saturated:.0%} of the rounds the gradient is lost in the noise; give the rounds "
            "more clients or examples"
        )
    if evidence.clients < CLIENTS:
        found.append(
            f"only {evidence.clients:g} clients in a round, whose norms say little of the noise; take {CLIENTS} or more"
        )
    if goal.s_min < NOISELESS_STEPS:
        found.append(
            f"only {goal.s_min:.0f} noiseless steps up to this loss: rough numbers, from {NOISELESS_STEPS} on fair"
        )
    return (*found, *_drift(evidence))


def _drift(evidence: Evidence) -> tuple[str, ...]:
    if evidence.drifts:
        return (
            f"clients differ: {evidence.drift:.0%} of a client's noise is drift (m_drift), which more examples of the "
            "same clients do not average; so the numbers are in clients, and hold for more or fewer of them",
        )
    if evidence.everybody and (evidence.mixed if evidence.drift is None else evidence.drift > 0.1):
        return (
            "all clients take part in every round, so that their drift is no noise of the mean, but it is counted as "
            "such: B_crit is too large",
        )
    if evidence.drift is None and evidence.mixed:
        return (
            "clients may differ, and drift was not measured: for more examples of the same clients, run again with "
            "noise_scale.halves=true",
        )
    return ()
