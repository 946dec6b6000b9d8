"""Metrics take predictions that lie on a GPU."""

import pytest
import torch

from fedbatch.metrics import (
    Calibration,
    SharedTemperature,
    SoftBinTemperature,
    brier,
    calibration_error,
    classwise_ece,
    nll,
)
from fedbatch.metrics.report import Predicted
from tests.virtual_gpu import VirtualGpu

LOGITS = 3 * torch.randn(60, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(4, (60,), generator=torch.Generator().manual_seed(1))


def on_both(score):
    """A score of predictions on the CPU and on the GPU."""
    with VirtualGpu().active():
        there = score(LOGITS.to("cuda"), LABELS.to("cuda"))
    return score(LOGITS, LABELS), there


@pytest.mark.parametrize(
    "score",
    [
        lambda z, y: nll(z.softmax(1), y),
        lambda z, y: brier(z.softmax(1), y),
        lambda z, y: classwise_ece(z.softmax(1), y),
        lambda z, y: calibration_error(z.softmax(1), y),
        lambda z, y: calibration_error(z.softmax(1), y, binning="mass"),
        lambda z, y: Calibration().columns(Predicted(z, y)),
        lambda z, y: Calibration().diagram(Predicted(z, y)),
        lambda z, y: SharedTemperature().fit(Predicted(z, y)),
        lambda z, y: SoftBinTemperature().fit(Predicted(z, y)),
    ],
)
def test_a_score_is_that_of_a_cpu(score):
    here, there = on_both(score)
    assert here == there
