"""Batches that double where a schedule would halve the learning rate."""

from fedbatch.batch.learning_rate import LearningRate
from fedbatch.controllers.phase import Phase
from fedbatch.controllers.schedule import Schedule, doubled


def seesaw(
    *,
    cohort_size: int,
    client_batch_size: int | None,
    rounds: int,
    lr: float,
    rate_factor: float,
    decay: str,
    decay_share: float,
    times: int,
    double: str,
) -> Schedule:
    """A schedule of doubling batches in the place of a decay (Meterez et al. 2025, arXiv 2510.14717).

    Noise falls with the rate over the batch. So where the decay would have halved the rate, twice the batch does the
    same for SGD, in half the rounds for the same examples; for Adam and its kin, whose steps shrink by the square root,
    it takes twice the batch and 1/sqrt(2) of the rate. Leave ``learning_rate.decay`` at none.

    Args:
        cohort_size: clients a round at the start.
        client_batch_size: examples a client at the start; None for all, which cannot be doubled.
        rounds: of the whole run. Each batch has the share of the examples that the decay would have given to its rate.
        lr: server learning rate at the start.
        rate_factor: factor on it at each doubling, in (0, 1]: 1 for SGD, 0.7071 for Adam and its kin.
        decay: of the schedule that is replaced: "cosine", "linear" or "wsd".
        decay_share: last part of "wsd", as a share of the examples.
        times: doublings; after the last one the batch stays.
        double: "cohort" or "batch".
    """
    if decay not in ("cosine", "linear", "wsd"):
        raise ValueError(f"controller.decay must be cosine, linear or wsd (got {decay!r})")
    if not 0 < rate_factor <= 1:
        raise ValueError(f"controller.rate_factor must be in (0, 1] (got {rate_factor})")
    if times < 1:
        raise ValueError(f"controller.times must be at least 1 (got {times})")
    replaced = LearningRate(decay=decay, decay_share=decay_share)
    cuts = [0.0, *(replaced.share_at(0.5**k) for k in range(1, times + 1)), 1.0]
    spans = [(cuts[k + 1] - cuts[k]) / 2**k for k in range(times + 1)]
    starts = [round(rounds * sum(spans[:k]) / sum(spans)) for k in range(times + 1)]
    if len({*starts, rounds}) < times + 2:
        raise ValueError(f"controller.times ({times}) is too many doublings for {rounds} rounds; lower it")
    sizes = doubled(cohort_size, client_batch_size, times, double)
    phases = {
        f"x{2**k}": Phase(f"x{2**k}", cohort, batch, lr=lr * rate_factor**k) for k, (cohort, batch) in enumerate(sizes)
    }
    return Schedule(phases, dict(zip(phases, starts, strict=True)))
