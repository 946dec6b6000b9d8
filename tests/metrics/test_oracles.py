"""Calibration errors against two other libraries."""

import numpy as np
import pytest
import torch

from fedbatch.metrics import calibration_error

pytestmark = pytest.mark.slow  # torchmetrics and scikit-learn take seconds to import


def draw(seed, n=700, classes=6):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(classes, 0.4), size=n)
    return probs, np.array([rng.choice(classes, p=0.7 * p + 0.3 / classes) for p in probs])


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("bins", [5, 15])
def test_equal_width_as_torchmetrics(norm, bins):
    """With confidences below 1, which its 1.9 counts into a bin of their own."""
    from torchmetrics.functional.classification import multiclass_calibration_error

    probs, labels = (torch.from_numpy(a) for a in draw(seed=bins))
    assert probs.max() < 1
    other = float(multiclass_calibration_error(probs, labels, num_classes=6, n_bins=bins, norm=norm))
    assert calibration_error(probs, labels, bins=bins, norm=norm) == pytest.approx(other, abs=1e-6)  # it has float32


@pytest.mark.parametrize("debias", [False, True])
@pytest.mark.parametrize(("seed", "bins"), [(0, 10), (1, 15), (2, 7)])
def test_equal_mass_as_uncertainty_calibration(debias, seed, bins):
    import calibration

    probs, labels = draw(seed)
    other = calibration.lower_bound_scaling_ce(probs, labels, p=2, debias=debias, num_bins=bins, mode="top-label")
    own = calibration_error(
        torch.from_numpy(probs), torch.from_numpy(labels), bins=bins, norm="l2", binning="mass", debias=debias
    )
    assert own == pytest.approx(float(other), abs=1e-12)
