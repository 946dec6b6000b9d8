import logging

import pytest

from fedbatch.losses import SBECE, Brier, CrossEntropy, SAvUC, Sum
from fedbatch.losses.small_batches import chance_score, warning
from fedbatch.setup import task


def test_chance_makes_small_batches_look_miscalibrated():
    scores = [chance_score(SBECE(), n, 10) for n in (10, 32, 128, 4096)]
    assert scores == sorted(scores, reverse=True) and scores[0] > 10 * scores[-1]


@pytest.mark.parametrize("loss", [SBECE(), Sum(CrossEntropy(), SAvUC(0.5, 1.0), 1.0), Sum(SBECE(), Brier(), 0.0)])
def test_a_batch_below_128_is_warned_of_with_its_bias(loss):
    line = warning(loss, 127, 10)
    assert "127 examples" in line and "client_batch_size=128" in line
    assert warning(loss, 128, 10) is None
    part = loss if not isinstance(loss, Sum) else next(p for p in loss.counted if not p.per_example)
    assert f"{type(part).__name__} {chance_score(part, 127, 10):.2g}" in line


@pytest.mark.parametrize("loss", [Brier(), Sum(CrossEntropy(), Brier(), 1.0), Sum(CrossEntropy(), SBECE(), 0.0)])
def test_no_warning_where_no_example_counts_for_another(loss):
    assert warning(loss, 1, 10) is None


@pytest.mark.slow
def test_a_run_is_told_of_its_smallest_phase(make_config, caplog):
    caplog.set_level(logging.WARNING, "fedbatch")
    task.load(make_config("loss=ce_sb_ece").to_json())  # 4 examples in the small phase, 8 in the large one
    assert [r for r in caplog.messages if "of 4 examples" in r]
    caplog.clear()
    task.load(make_config("loss=ce_sb_ece", "loss.weight=0").to_json())
    assert not caplog.messages
