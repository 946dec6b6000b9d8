"""A written budget: how often the host waits for the GPU in a round of a whole run, whatever the cohort."""

from collections import Counter

import pytest

from tests.gpu.test_runs import MLP, NOISE, STEPS, left_on
from tests.virtual_gpu import VirtualGpu

BUDGET = {
    f"executor=fused {MLP}": 5,
    f"executor=fused {MLP} nodes=4 sampling=all": 14,  # three a node, whose updates are bounded, and two
    f"executor=vmap {STEPS} {MLP}": 5,
    f"executor=fused privacy=client_central {NOISE}": 8,
    f"executor=fused privacy=example_local {NOISE}": 9,
}
"""Waits of a round without evaluation."""
ONCE = "data_digest"
"""What a run waits for once for each client."""
HELD_OUT = f"executor=fused {MLP} client_holdout=0.25 evaluate_every_rounds=1"


def waits(make_config, text, rounds, **changes):
    """By line, of a run."""
    values = {"rounds": rounds, "population": 40, "evaluate_every_rounds": 0, "checkpoint_every_rounds": 0} | changes
    found = Counter()
    with VirtualGpu().active() as gpu:
        left_on(make_config, "cuda", f"{text} {' '.join(f'{name}={value}' for name, value in values.items())}")
    for (_, line), count in gpu.waits.items():
        found[line] += count
    return found


def of_a_round(make_config, text, **changes):
    first, more = (waits(make_config, text, rounds, **changes) for rounds in (2, 4))
    more.subtract(first)
    return Counter({line: count / 2 for line, count in more.items() if count and ONCE not in line})


@pytest.mark.slow
@pytest.mark.parametrize("text", BUDGET)
def test_waits_of_a_round_stay_within_their_budget(make_config, text):
    few, many = (of_a_round(make_config, text, cohort_size=size, overwrite="true") for size in (6, 12))
    assert few == many, "waits grow with clients"
    assert few.total() <= BUDGET[text], few


@pytest.mark.slow
def test_evaluation_waits_do_not_grow_with_clients(make_config):
    few, many = (waits(make_config, HELD_OUT, 1, population=size, overwrite="true") for size in (20, 40))
    assert few == many
