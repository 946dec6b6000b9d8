"""Which clients take part in a round."""

from fedbatch.core.random import Ints, generator


def sample_cohort(clients: Ints, sampling: str, cohort_size: int, seed: int, round_: int) -> Ints:
    """Clients of a round, ascending ids.

    Args:
        clients: int64 (P,), ids of all who can be asked, ascending.
        sampling: "uniform" without replacement, "poisson" (each client on its own with probability
            ``cohort_size / P``, so the number varies) or "all".
        cohort_size: clients wanted, or expected; where there are fewer, all are taken.
        seed: run seed.
        round_: index of the round.
    """
    if sampling == "all":
        return clients
    draw = generator(seed, "cohort", round_)
    if sampling == "poisson":
        return clients[draw.random(len(clients)) < cohort_size / len(clients)]
    chosen = draw.choice(len(clients), size=min(cohort_size, len(clients)), replace=False, shuffle=False)
    chosen.sort()
    return clients[chosen]
