"""Small batches for most of the data, large ones for the rest."""

from fedbatch.controllers.phase import Phase, relative_batch
from fedbatch.controllers.schedule import Schedule


def late_switch(*, small: Phase, large: Phase, rounds: int, share: float) -> Schedule:
    """A schedule that goes large when ``share`` of a run's examples are used (Wang et al. 2026, arXiv 2602.14208).

    Noise that small steps have left is forgotten soon after a switch, so that large batches can wait. For hard tasks
    0.6 to 0.8 is near the optimum of a given number of examples; easy ones want batches that grow all the time.

    Args:
        small: phase of the first rounds.
        large: phase of the last ones.
        rounds: of the whole run, of which the switch takes so many that the examples are shared as asked.
        share: of the examples of all rounds that are used in small batches, in (0, 1).
    """
    if not 0 < share < 1:
        raise ValueError(f"controller.share must be in (0, 1) (got {share})")
    ratio = relative_batch(large, small)
    start = round(rounds * share * ratio / (1 - share + share * ratio))
    if not 0 < start < rounds:
        raise ValueError(
            f"controller.share ({share}) of the examples leaves one of the phases without a round of {rounds}; "
            "change share, or the batch of controller.large"
        )
    return Schedule({"small": small, "large": large}, {"small": 0, "large": start})
