import numpy as np
import pytest
import torch

from fedbatch.aggregation.sums import Aggregate, nobody
from fedbatch.batch.noise_scale import NoiseScale, estimate, estimate_weighted
from fedbatch.clients.fedsgd import FedSGD
from fedbatch.clients.local_sgd import LocalSGD
from fedbatch.server.measure import Measured, measure, raw


def aggregate(weights, num_examples=(4, 8, 20), halves=False):
    none = np.zeros(0)
    return Aggregate(
        mean_update=torch.zeros(2),
        mean_buffers=torch.zeros(0),
        weight_sum=float(np.sum(weights)),
        sq_norm_of_mean=3.0,
        mean_cosine=float("nan"),
        clients=np.arange(3),
        weights=np.array(weights, dtype=float),
        num_examples=np.array(num_examples),
        sq_norms=np.array([9.0, 7.0, 4.0]),
        losses=np.ones(3),
        half_dots=np.array([2.5, 2.0, 2.2]) if halves else none,
        half_sq_diffs=np.array([20.0, 30.0, 25.0]) if halves else none,
        excluded=np.zeros(0, np.int64),
    )


def test_gradients_are_measured_in_examples():
    measured = measure(aggregate([4, 8, 20]), FedSGD(), population=50)
    assert measured.noise == estimate([9.0, 7.0, 4.0], [4, 8, 20], 3.0)
    assert (measured.size, measured.unit, measured.drift) == (32.0, "examples", None)


def test_uniform_weights_use_the_form_for_them():
    measured = measure(aggregate([1, 1, 1]), FedSGD(), population=50)
    assert measured.noise == estimate_weighted([9.0, 7.0, 4.0], [4, 8, 20], 3.0, weights=[1, 1, 1])


def test_local_steps_are_measured_in_clients():
    measured = measure(aggregate([1, 1, 1]), LocalSGD(lr=0.1), population=50)
    assert measured.noise == estimate([9.0, 7.0, 4.0], [1, 1, 1], 3.0)
    assert (measured.size, measured.unit) == (3.0, "clients")


def test_drift_knows_when_everybody_takes_part():
    some, everybody = (measure(aggregate([4, 8, 20], halves=True), FedSGD(), population=p).drift for p in (50, 3))
    assert some.trace_within == everybody.trace_within == pytest.approx((4 * 20 + 8 * 30 + 20 * 25) / 32)
    assert some.grad_sq != everybody.grad_sq


def test_nobody_is_no_measurement():
    measured = measure(nobody(torch.zeros(2), torch.zeros(0)), FedSGD(), population=50)
    assert measured.noise is None and measured.size == 0


def test_a_controller_sees_the_rounds_own_estimates_with_privacy_noise_in_the_trace():
    """Trace over batch is the energy of all noise on the mean: 100 / 20 + 3 / 20 + 50 / 20^2."""
    noise = NoiseScale(1.5, 100.0, 66.7, 0.1, 1.0)
    assert raw(Measured(20.0, "examples", noise, None)) == (100.0, 1.5)
    trace, grad_sq = raw(Measured(20.0, "examples", noise, None, noise_per_unit=3.0, fixed_noise=50.0))
    assert trace / 20 == pytest.approx(100 / 20 + 3 / 20 + 50 / 20**2) and grad_sq == 1.5


@pytest.mark.parametrize("size", [0.0, 20.0])
def test_it_sees_none_where_nothing_was_measured(size):
    assert raw(Measured(size, "clients", None, None)) == (None, None)
    assert raw(Measured(0.0, "clients", NoiseScale(1.0, 1.0, 1.0, 0.0, 0.0), None)) == (None, None)
