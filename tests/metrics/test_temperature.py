import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from fedbatch.metrics import BinSums
from fedbatch.metrics.report import Predicted
from fedbatch.metrics.scaling import PrivateTemperature, SharedTemperature, SoftBinTemperature
from fedbatch.metrics.statistics import STATISTICS
from fedbatch.metrics.temperature import GRID, LEAST, MOST, bisect, newton, slopes

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/calibration.json").read_text())
LOGITS = torch.tensor(GOLDEN["inputs"]["logits"], dtype=torch.float64)
LABELS = torch.tensor(GOLDEN["inputs"]["labels"])


def golden(start):
    return next(value for name, value in GOLDEN["outputs"].items() if name.startswith(start))


def mean_nll(inverse):
    return float(torch.nn.functional.cross_entropy(inverse * LOGITS, LABELS))


def test_the_least_nll_against_the_golden_grid_and_another_minimiser():
    case = golden("federated grid temperature")
    found = SharedTemperature().fit(Predicted(LOGITS, LABELS))
    assert abs(found - case["value"]) <= 0.025 and mean_nll(1 / found) <= case["mean_nll"]
    assert mean_nll(1 / case["value"]) == pytest.approx(case["mean_nll"], abs=1e-12)
    other = minimize_scalar(mean_nll, bounds=(0.05, 20), options={"xatol": 1e-10})
    assert found == pytest.approx(1 / other.x, rel=1e-6)


def test_a_federated_temperature_is_the_centralised_one():
    class Clients:
        def sums(self, statistic, at):
            return sum(STATISTICS[statistic](LOGITS[i : i + 4], LABELS[i : i + 4], at) for i in (8, 0, 4))

    whole = Predicted(LOGITS, LABELS)
    assert SharedTemperature().fit(Clients()) == pytest.approx(SharedTemperature().fit(whole), abs=1e-12)
    assert SoftBinTemperature().fit(Clients()) == SoftBinTemperature().fit(whole)


def test_the_least_soft_error_against_the_golden_grid():
    case = golden("temperature scaling: grid argmin_T SB-ECE")
    sums = STATISTICS["soft_bins"](LOGITS, LABELS, torch.tensor([1 / case["value"]], dtype=torch.float64))
    assert BinSums.of_vector(sums).error("l2") == pytest.approx(case["objective"], abs=1e-9)
    errors = [
        BinSums.of_vector(row).error("l2") for row in STATISTICS["soft_bins"](LOGITS, LABELS, 1 / GRID).view(61, -1)
    ]
    assert SoftBinTemperature().fit(Predicted(LOGITS, LABELS)) == float(GRID[int(np.argmin(errors))])


@pytest.mark.parametrize("scale", [1e-3, 0.2, 1.0, 30.0, 1e4])
def test_newton_finds_the_minimum_whatever_the_scale_of_logits(scale):
    steps = []

    def sums(inverse):
        steps.append(inverse)
        return tuple(
            STATISTICS["scaled_nll"](scale * LOGITS, LABELS, torch.tensor([inverse], dtype=torch.float64)).tolist()
        )

    expected = np.clip(SharedTemperature().fit(Predicted(LOGITS, LABELS)) * scale, LEAST, MOST)
    assert newton(sums) == pytest.approx(expected, rel=1e-9) and len(steps) <= 60


def test_temperatures_of_what_tells_nothing():
    right = Predicted(LOGITS, LOGITS.argmax(dim=1))
    assert SharedTemperature().fit(right) == pytest.approx(LEAST)
    nothing = Predicted(LOGITS[:0], LABELS[:0])
    assert SharedTemperature().fit(nothing) == SoftBinTemperature().fit(nothing) == 1
    assert SharedTemperature().fit(Predicted(torch.zeros_like(LOGITS), LABELS)) == 1  # uniform at every temperature


def test_slopes_are_derivatives_by_example_and_of_a_sequence_the_mean():
    own = slopes(LOGITS, LABELS, 0.7)
    assert float(own.sum()) == pytest.approx(float(STATISTICS["scaled_nll"](LOGITS, LABELS, torch.tensor([0.7]))[1]))
    labels = LABELS.view(3, 4).clone()
    labels[0, 2:] = -100
    sequences = slopes(LOGITS.view(3, 4, 4), labels, 0.7)
    torch.testing.assert_close(sequences, torch.stack([own[:2].mean(), own[4:8].mean(), own[8:].mean()]))


@pytest.mark.parametrize("target", [0.3, 0.9, 1.7, 6.0])
def test_halving_comes_within_three_percent(target):
    assert bisect(lambda inverse: inverse - 1 / target) == pytest.approx(target, rel=0.03)


@pytest.mark.parametrize(("noise", "norm"), [(0.0, 1.0), (1.0, 0.0), (1.0, float("inf"))])
def test_bad_arguments(noise, norm):
    with pytest.raises(ValueError, match="relative_noise and clip_norm"):
        PrivateTemperature(noise, norm)
