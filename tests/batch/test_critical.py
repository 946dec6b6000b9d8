import numpy as np
import pytest
from scipy import stats

from fedbatch.batch.critical import _t_quantile, fit_critical_batch_size

SIZES = np.array([4.0, 16, 64, 256, 1024])


def steps(sizes, s_min=50.0, e_min=5000.0):
    return s_min + e_min / np.asarray(sizes)


@pytest.mark.parametrize("b_crit", [10.0, 100.0, 3000.0])
def test_exact_without_noise(b_crit):
    fit = fit_critical_batch_size(SIZES, steps(SIZES, s_min=50, e_min=50 * b_crit))
    assert (fit.s_min, fit.e_min, fit.b_crit) == pytest.approx((50, 50 * b_crit, b_crit), rel=1e-6)
    assert fit.b_crit_interval == pytest.approx((b_crit, b_crit), rel=1e-4)


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_cover_nine_times_in_ten(seeds):
    rng = np.random.default_rng(0)
    sizes, hits = np.repeat(SIZES, seeds), np.zeros(3)
    for _ in range(1000):
        fit = fit_critical_batch_size(sizes, steps(sizes) * np.exp(rng.normal(0, 0.1, len(sizes))))
        truth = zip((50, 5000, 100), (fit.s_min_interval, fit.e_min_interval, fit.b_crit_interval), strict=True)
        hits += [low <= value <= high for value, (low, high) in truth]
    assert (hits / 1000 > 0.87).all() and (hits / 1000 < 0.93).all()


def test_equivariant_in_both_units():
    noisy = steps(SIZES) * np.array([1.1, 0.95, 1.05, 0.9, 1.0])
    fit, scaled = fit_critical_batch_size(SIZES, noisy), fit_critical_batch_size(7 * SIZES, 1e-3 * noisy)
    assert scaled.s_min == pytest.approx(1e-3 * fit.s_min, rel=1e-6)
    assert scaled.e_min == pytest.approx(7e-3 * fit.e_min, rel=1e-6)
    assert scaled.b_crit_interval == pytest.approx(tuple(7 * np.array(fit.b_crit_interval)), rel=1e-6)


def test_order_does_not_matter():
    assert fit_critical_batch_size(SIZES[::-1], steps(SIZES)[::-1]).b_crit == pytest.approx(100, rel=1e-6)


@pytest.mark.parametrize("observed", [1000 / SIZES, np.full(5, 30.0)], ids=["never flattens", "always flat"])
def test_what_the_data_do_not_show_is_left_open(observed):
    noisy = observed * np.array([1.05, 0.93, 1.02, 0.96, 1.06])
    low, high = fit_critical_batch_size(SIZES, noisy).b_crit_interval
    assert high > 100 * low


@pytest.mark.parametrize(
    "arguments",
    [([1, 2], [3, 2]), ([1, 2, 2], [3, 2, 2]), ([1, 2, 0], [3, 2, 1]), ([1, 2, 3], [3, np.nan, 1]), ([1, 2, 3], [3])],
)
def test_what_cannot_be_fitted_is_refused(arguments):
    with pytest.raises(ValueError, match="distinct|positive|equally long"):
        fit_critical_batch_size(*arguments)


@pytest.mark.parametrize(("freedom", "tolerance"), [(2, 0.015), (3, 0.01), (10, 1e-3), (100, 1e-5)])
def test_t_quantile(freedom, tolerance):
    assert _t_quantile(0.95, freedom) == pytest.approx(stats.t.ppf(0.95, freedom), rel=tolerance)
