import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbatch.batch.noiseless import Rounds, noiseless_sums

RNG = np.random.default_rng


def rounds(traces, grad_sqs, batches, phases=None):
    traces = np.asarray(traces, float)
    batches = np.broadcast_to(np.asarray(batches, float), traces.shape)
    phases = np.zeros(len(traces), int) if phases is None else np.asarray(phases)
    return Rounds(traces, np.asarray(grad_sqs, float), batches, phases)


def sums(record, steps=None):
    s_min, e_min, saturated, _ = noiseless_sums(record, steps or float(len(record.traces)), RNG(0), 10)
    return s_min, e_min, saturated


def test_a_noise_scale_of_one_batch_halves_every_step():
    assert sums(rounds(np.full(10, 8.0), np.ones(10), 8)) == pytest.approx((5.0, 40.0, 0.0))
    assert sums(rounds(np.full(10, 8.0), np.ones(10), 8), 2.5) == pytest.approx((1.25, 10.0, 0.0))


def test_a_window_is_read_by_the_ratio_of_its_sums():
    # Means 8 and 1; ratios round by round would be 8/3, -8, 0 and 16.
    assert sums(rounds([8, 8, 0, 16], [3, -1, 1, 1], 8)) == pytest.approx((2.0, 16.0, 0.0))


def test_windows_follow_a_noise_scale_that_grows():
    # Eight rounds are two windows of four: N = 4, then 12, at a batch of 4: shares 1/2 and 1/4.
    s_min, e_min, _ = sums(rounds([4] * 4 + [12] * 4, np.ones(8), 4))
    assert (s_min, e_min) == pytest.approx((4 / 2 + 4 / 4, 4 * 4 / 2 + 4 * 4 * 3 / 4))


def test_no_gradient_saturates_and_no_noise_counts_whole():
    lost = sums(rounds([8] * 8, [1] * 4 + [-1] * 4, 8))
    assert lost == pytest.approx((2.0, 4 * 4 + 4 * 8, 0.5))
    assert sums(rounds([-1] * 4, [1] * 4, 8)) == pytest.approx((4.0, 0.0, 0.0))
    assert sums(rounds([0] * 4, [0] * 4, 8)) == pytest.approx((0.0, 32.0, 1.0))


def test_every_step_counts_at_its_own_batch():
    # N = 8 throughout: shares 8/16 and 24/32.
    s_min, e_min, _ = sums(rounds([8] * 8, [1] * 8, [8] * 4 + [24] * 4, [0] * 4 + [1] * 4))
    assert (s_min, e_min) == pytest.approx((4 / 2 + 4 * 3 / 4, 4 * 4 + 4 * 6))


def test_a_window_never_reaches_over_a_change_of_phase():
    # Together the six rounds would be one window; apart they are N = 2 and N = 14 at a batch of 2.
    s_min, _, _ = sums(rounds([2] * 3 + [14] * 3, [1] * 6, 2, [0] * 3 + [1] * 3))
    assert s_min == pytest.approx(3 / 2 + 3 / 8)


def test_rounds_without_an_estimate_count_with_their_window():
    nan = float("nan")
    # Five of the eight rounds are known, one window: N = (3 x 8 + 2 x 24) / 5 = 14.4 for all eight.
    s_min, e_min, _ = sums(rounds([nan, 8, 8, 8, 24, nan, 24, 24], [1, 1, 1, 1, 1, 1, nan, 1], 8))
    assert (s_min, e_min) == pytest.approx((8 / (1 + 14.4 / 8), 8 * 14.4 / (1 + 14.4 / 8)))
    with pytest.raises(ValueError, match="only 1 of 4 rounds"):
        sums(rounds([8, nan, nan, nan], [1] * 4, 8))
    with pytest.raises(ValueError, match="batch > 0"):
        sums(rounds([8] * 4, [1] * 4, 0))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 200), st.floats(0.01, 1.0), st.sampled_from([1.0, 7.0, 512.0]))
def test_at_the_own_batch_the_sums_are_the_steps(seed, count, share, batch):
    rng = RNG(seed)
    record = rounds(rng.normal(5, 10, count), rng.normal(0.2, 1, count), batch, rng.integers(0, 2, count).cumsum() // 9)
    steps = share * count
    s_min, e_min, saturated, draws = noiseless_sums(record, steps, rng, 7)
    assert s_min + e_min / batch == pytest.approx(steps)
    assert draws @ [1, 1 / batch] == pytest.approx(np.full(7, steps))
    assert -1e-9 <= s_min <= steps + 1e-9 and 0 <= saturated <= 1 + 1e-9 and (draws >= -1e-9).all()


def test_many_rounds_are_drawn_in_stretches():
    rng = RNG(0)
    record = rounds(rng.normal(8, 1, 50_000), rng.normal(1, 0.1, 50_000), 8)
    s_min, _, _, draws = noiseless_sums(record, 50_000.0, rng, 50)
    assert s_min == pytest.approx(25_000, rel=0.01) and draws[:, 0].std() == pytest.approx(
        0.18 * 25_000 * 0.5 / 224, rel=0.6
    )


def quadratic(seed, batch, clients, steps, lr, noise):
    """Estimates along SGD on sum h w^2 / 2, from clients' gradients, and the true noise scale of every step."""
    rng, curvature = RNG(seed), np.geomspace(1, 0.03, 40)
    w, each, found = np.ones(40), batch // clients, []
    for _ in range(steps):
        gradient = curvature * w
        sent = gradient + noise / np.sqrt(40 * each) * rng.normal(size=(clients, 40))
        mean = sent.mean(axis=0)
        trace = ((sent**2).sum(axis=1).mean() - mean @ mean) / (1 / each - 1 / batch)
        found.append((trace, mean @ mean - trace / batch, noise**2 / (gradient @ gradient)))
        w = w - lr * mean
    return np.array(found).T


@pytest.mark.parametrize("batch, clients, noise", [(16, 16, 1.0), (64, 8, 3.0)])
def test_resampled_sums_cover_those_of_the_true_noise_scales(batch, clients, noise):
    hits, errors = 0, []
    for seed in range(80):
        traces, grad_sqs, true = quadratic(seed, batch, clients, 120, 0.05, noise)
        s_min, _, _, draws = noiseless_sums(rounds(traces, grad_sqs, batch), 120.0, RNG(seed), 200)
        truth = float(np.sum(1 / (1 + true / batch)))
        low, high = np.quantile(draws[:, 0], [0.05, 0.95])
        hits += low <= truth <= high
        errors.append(np.log(s_min / truth))
    assert abs(np.mean(errors)) < 0.03 and 0.78 <= hits / 80 <= 0.99
