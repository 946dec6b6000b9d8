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


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_sequence_is_one_example_whose_positions_are_averaged(smoothing):
    logits, labels = torch.randn(3, 5, 4).double(), torch.randint(4, (3, 5))
    labels[0, 2:] = labels[1, 0] = -100
    labels[2] = -100
    loss = CrossEntropy(smoothing)
    own = loss(logits, labels, reduction="none")
    torch.testing.assert_close(own[0], loss(logits[0, :2], labels[0, :2]))
    torch.testing.assert_close(own[1], loss(logits[1, 1:], labels[1, 1:]))
    assert own[2] == 0, "nothing to tell"
    torch.testing.assert_close(loss(logits, labels), own.mean())
    torch.testing.assert_close(loss(logits, labels, reduction="sum"), own.sum())
