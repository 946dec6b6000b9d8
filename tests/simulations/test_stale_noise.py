"""What stale updates add to the estimate of tr(S), against what follows from the gradients at their versions."""

import numpy as np

from simulations.stale_noise import TRACE, launched


def test_the_trace_of_a_buffer_is_the_noise_and_the_spread_of_its_versions():
    """At a high rate, where versions differ by much: within four standard errors, and far from the noise alone."""
    runs = [launched(0.8, 4, seed, steps=40) for seed in range(25)]
    differences = np.concatenate([run.trace - run.expected_trace for run in runs])
    assert abs(differences.mean()) < 4 * differences.std() / len(differences) ** 0.5
    added = np.concatenate([run.expected_trace for run in runs]) - TRACE
    assert added.mean() > 8 * differences.std() / len(differences) ** 0.5


def test_without_staleness_both_parts_are_those_of_a_synchronous_round():
    runs = [launched(0.2, 1, seed, steps=40) for seed in range(25)]
    assert all((run.staleness == 0).all() and np.allclose(run.expected_trace, TRACE) for run in runs)
    for found, true in (("trace", "expected_trace"), ("grad_sq", "true_grad_sq")):
        differences = np.concatenate([getattr(run, found) - getattr(run, true) for run in runs])
        assert abs(differences.mean()) < 4 * differences.std() / len(differences) ** 0.5
