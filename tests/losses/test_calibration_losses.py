import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fedbatch.losses import (
    FLSD53,
    MMCE,
    SBECE,
    AvUC,
    Brier,
    ConfidencePenalty,
    CrossEntropy,
    Focal,
    FrozenBins,
    SAvUC,
    SBECELabelBinned,
    Sum,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/calibration.json").read_text())
LOGITS = torch.tensor(GOLDEN["inputs"]["logits"], dtype=torch.float64)
LABELS = torch.tensor(GOLDEN["inputs"]["labels"])
PER_EXAMPLE = [
    CrossEntropy(0.1),
    Focal(2.0),
    Focal(0.5),
    FLSD53(),
    Brier(),
    ConfidencePenalty(0.3),
    FrozenBins([0.2, 0.4, 0.9]),
]
COUPLED = [SBECE(), SBECE(norm=1), SBECELabelBinned(), AvUC(0.9), SAvUC(0.5, 1.0), SAvUC(0.6, 0.01), MMCE()]
MIXED = [Sum(CrossEntropy(), SBECE(), 2.0), Sum(Focal(2.0), Brier(), 0.5)]


def golden(name):
    return torch.tensor(GOLDEN["outputs"][name]["value"], dtype=torch.float64)


def names(loss):
    return f"{type(loss).__name__}{[*vars(loss).values()]}" if not isinstance(loss, Sum) else "Sum"


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("SB-ECE bin l2 M=15 T=0.0005", SBECE(15, 0.0005)),
        ("SB-ECE bin l2 M=5 T=1.0", SBECE(5, 1.0)),
        ("SB-ECE bin l1 M=15 T=0.01", SBECE(15, 0.01, norm=1)),
        ("SB-ECE label-binned l2 SQUARED M=15 T=0.01 (edges 1/K..1)", SBECELabelBinned(15, 0.01)),
        ("SB-ECE label-binned l2 SQUARED M=5 T=1.0 (edges 1/K..1)", SBECELabelBinned(5, 1.0)),
        ("AvUC u_th=0.9", AvUC(0.9)),
        ("S-AvUC T=1.0 kappa=0.5", SAvUC(0.5, 1.0)),
        ("S-AvUC T=0.01 kappa=0.6", SAvUC(0.6, 0.01)),
        ("focal mean gamma=2.0", Focal(2.0)),
        ("focal FLSD-53 mean", FLSD53()),
        ("label smoothing CE mean eps=0.05", CrossEntropy(0.05)),
        ("brier sum-over-classes mean", Brier()),
    ],
)
def test_golden_values(name, loss):
    torch.testing.assert_close(loss(LOGITS, LABELS), golden(name), rtol=0, atol=1e-9)


def test_golden_values_of_other_forms():
    torch.testing.assert_close(MMCE(0.4)(LOGITS, LABELS) ** 2, golden("MMCE_m squared (kernel width 0.4)"))
    each = Focal(2.0)(LOGITS, LABELS, reduction="none")
    torch.testing.assert_close(each, golden("per_example focal gamma=2"))


def test_golden_gradient():
    logits = LOGITS.clone().requires_grad_()
    SAvUC(0.5, 1.0)(logits, LABELS).backward()
    torch.testing.assert_close(logits.grad, golden("d S-AvUC (T=1,kappa=0.5) / d logits"), rtol=0, atol=1e-9)


def test_confidence_penalty_by_hand():
    p = LOGITS.softmax(1)
    expected = F.cross_entropy(LOGITS, LABELS) + 0.3 * (p * p.log()).sum(1).mean()
    torch.testing.assert_close(ConfidencePenalty(0.3)(LOGITS, LABELS), expected)


def test_focal_without_focus_is_cross_entropy():
    torch.testing.assert_close(Focal(0.0)(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS))


def test_soft_bins_become_hard_ones():
    """Three bins, all confidences well inside: a temperature near 0 is the ordinary l2 error."""
    confidence = torch.tensor([0.8, 0.9, 0.55, 0.6], dtype=torch.float64)
    logits = torch.stack([confidence, 1 - confidence], dim=1).log()
    gaps = torch.tensor([0.5 - 0.85, 0.5 - 0.575], dtype=torch.float64)
    error = SBECE(bins=3, temperature=1e-4)(logits, torch.tensor([0, 1, 0, 1]))
    torch.testing.assert_close(error, (gaps.square().mean() + 1e-10).sqrt())


@pytest.mark.parametrize("loss", [*PER_EXAMPLE, *COUPLED, *MIXED], ids=names)
def test_gradients_are_those_of_the_values(loss):
    assert torch.autograd.gradcheck(lambda z: loss(z, LABELS), LOGITS.clone().requires_grad_())


def test_frozen_bins_follow_no_gradient_into_the_accuracies():
    confidence = torch.tensor([0.9], dtype=torch.float64, requires_grad=True)
    logits = torch.stack([confidence, 1 - confidence], dim=1).log()
    value = FrozenBins([0.2, 0.5, 0.7], temperature=1e-4)(logits, torch.tensor([0]))
    torch.testing.assert_close(value, (0.7 - confidence[0]) ** 2)
    value.backward()
    torch.testing.assert_close(confidence.grad, 2 * (confidence.detach() - 0.7))


SURE = torch.tensor([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0], [0.0, 0.0, 200.0]])
HARD_CASES = {
    "uniform": (torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])),
    "no error at all": (SURE, torch.tensor([0, 1, 2])),
    "sure and wrong": (SURE, torch.tensor([1, 2, 0])),
    "sure, some wrong": (SURE, torch.tensor([0, 1, 0])),
    "one example": (torch.tensor([[0.3, 0.1, 0.0]]), torch.tensor([0])),
    "a class missing": (torch.tensor([[0.3, 0.1, 0.0], [2.0, 0.0, 1.0]]), torch.tensor([0, 1])),
    "no label": (torch.zeros(2, 3), torch.tensor([-100, -100])),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", HARD_CASES)
@pytest.mark.parametrize("loss", [*PER_EXAMPLE[1:], *COUPLED, Sum(Focal(2.0), SBECE(), 1.0)], ids=names)
def test_values_and_gradients_are_finite(loss, case, dtype):
    logits, labels = HARD_CASES[case]
    logits = logits.to(dtype, copy=True).requires_grad_()
    value = loss(logits, labels)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", [*PER_EXAMPLE, *COUPLED, *MIXED], ids=names)
def test_per_example_says_whether_a_batch_is_the_mean_of_its_examples(loss):
    single = torch.stack([loss(z[None], y[None]) for z, y in zip(LOGITS, LABELS, strict=True)])
    off = (loss(LOGITS, LABELS) - single.mean()).abs()
    if loss.per_example:
        assert off < 1e-9
        torch.testing.assert_close(loss(LOGITS, LABELS, reduction="none"), single)
        torch.testing.assert_close(loss(LOGITS, LABELS, reduction="sum"), single.sum())
    else:
        assert off > 1e-3


@pytest.mark.parametrize("loss", PER_EXAMPLE, ids=names)
def test_a_sequence_is_one_example(loss):
    logits, labels = LOGITS.view(3, 4, 4), LABELS.view(3, 4).clone()
    labels[0, 2:] = -100
    own = loss(logits, labels, reduction="none")
    torch.testing.assert_close(own[0], loss(LOGITS[:2], LABELS[:2]))
    torch.testing.assert_close(own[1], loss(LOGITS[4:8], LABELS[4:8]))


@pytest.mark.parametrize("loss", COUPLED, ids=names)
def test_coupled_losses_count_labelled_positions(loss):
    labels = LABELS.clone()
    labels[10:] = -100
    expected = loss(LOGITS[:10], LABELS[:10])
    torch.testing.assert_close(loss(LOGITS.view(3, 4, 4), labels.view(3, 4)), expected)


@pytest.mark.parametrize("loss", PER_EXAMPLE, ids=names)
def test_per_example_losses_can_be_vectorised(loss):
    def gradient(z, y):
        return torch.func.grad(lambda z: loss(z[None], y[None]))(z)

    whole = torch.func.grad(lambda z: loss(z, LABELS, reduction="sum"))(LOGITS)
    torch.testing.assert_close(torch.func.vmap(gradient)(LOGITS, LABELS), whole)


def test_sum():
    loss = Sum(CrossEntropy(), SBECE(), 2.0)
    torch.testing.assert_close(loss(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS) + 2 * SBECE()(LOGITS, LABELS))
    with pytest.raises(ValueError, match="couples"):
        loss(LOGITS, LABELS, reduction="none")
    assert Sum(Focal(1.0), Brier(), 1.0).per_example
    assert not Sum(SBECE(), CrossEntropy(), 1.0).per_example


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: SBECE(bins=0), "bins"),
        (lambda: SBECE(temperature=-0.01), "temperature"),
        (lambda: SBECELabelBinned(norm=0.5), "norm"),
        (lambda: FrozenBins([0.5, 1.5]), "accuracies"),
        (lambda: AvUC(0.0), "threshold"),
        (lambda: SAvUC(1.0, 0.1), "kappa"),
        (lambda: SAvUC(0.5, 0.0), "temperature"),
        (lambda: MMCE(0.0), "width"),
        (lambda: Focal(-1.0), "gamma"),
        (lambda: ConfidencePenalty(float("nan")), "beta"),
        (lambda: Sum(Brier(), SBECE(), -1.0), "weight"),
    ],
)
def test_bad_arguments(make, word):
    with pytest.raises(ValueError, match=word):
        make()
