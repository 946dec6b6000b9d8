import pytest
import torch

from fedbatch.losses import CrossEntropy


def test_smoothed_by_hand():
    logits, labels = torch.tensor([[1.0, 2.0, 0.0]]).double(), torch.tensor([1])
    log_p = logits.log_softmax(1)[0]
    expected = -(0.9 * log_p[1] + 0.1 * log_p.mean())
    torch.testing.assert_close(CrossEntropy(label_smoothing=0.1)(logits, labels), expected)


def test_reductions_are_consistent():
    logits, labels = torch.randn(7, 4), torch.randint(4, (7,))
    loss = CrossEntropy()
    each = loss(logits, labels, reduction="none")
    torch.testing.assert_close(each.mean(), loss(logits, labels))
    torch.testing.assert_close(each.sum(), loss(logits, labels, reduction="sum"))


def test_bad_smoothing():
    with pytest.raises(ValueError, match="label_smoothing"):
        CrossEntropy(1.0)
