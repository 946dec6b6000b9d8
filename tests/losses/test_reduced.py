"""Torch's own losses are losses by example exactly where they are the mean of single examples' values."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from fedbatch.losses import MMCE, Focal
from fedbatch.losses.reduced import by_example

CLASSES = 4
TRIAL = torch.randn(8, CLASSES, dtype=torch.float64), torch.arange(CLASSES).repeat(2)
TORCHS = "loss._target_=torch.nn.CrossEntropyLoss"
WEIGHTS = torch.tensor([1.0, 2.0, 3.0, 4.0])


def swapped(logits, labels, reduction="mean"):
    """One that mixes examples, whatever its reduction."""
    values = functional.cross_entropy(logits - logits.mean(dim=0), labels, reduction="none")
    return values.mean() if reduction == "mean" else values


def halved(logits, labels, reduction="mean"):
    """One whose values are not those of its mean."""
    values = functional.cross_entropy(logits, labels, reduction="none")
    return values.mean() / 2 if reduction == "mean" else values


@pytest.mark.parametrize(
    "loss",
    [
        functional.cross_entropy,
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.MultiMarginLoss(),
    ],
)
def test_means_of_single_values_are_by_example(loss):
    logits, labels = torch.randn(9, CLASSES), torch.randint(CLASSES, (9,))
    found = by_example(loss, TRIAL)
    assert found.per_example and torch.allclose(found(logits, labels), loss(logits, labels))
    values = found(logits, labels, reduction="none")
    alone = torch.stack([loss(z[None], y[None]) for z, y in zip(logits, labels, strict=True)])
    assert values.shape == (9,) and torch.allclose(values, alone)


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(weight=WEIGHTS),
        nn.CrossEntropyLoss(ignore_index=1),
        nn.CrossEntropyLoss(reduction="sum"),
        swapped,
        halved,
        lambda logits, labels: functional.cross_entropy(logits, labels),
        nn.MSELoss(),
        MMCE(),
    ],
    ids=["weights", "ignored", "sum", "mixes", "halved", "no reduction", "other inputs", "of the batch"],
)
def test_all_else_stays_a_loss_of_the_batch(loss):
    assert by_example(loss, TRIAL) is loss


def test_a_loss_that_says_so_itself_is_left_alone():
    loss = Focal(gamma=2.0)
    assert by_example(loss, TRIAL) is loss


def test_the_module_that_was_given_keeps_its_reduction():
    loss = nn.CrossEntropyLoss()
    by_example(loss, TRIAL)
    assert loss.reduction == "mean"


@pytest.mark.parametrize("executor", ["fused", "vmap", "loop"])
def test_a_run_with_torchs_loss_is_a_run_with_ours(make_config, executor):
    from tests.conftest import run

    common = ("controller=fixed", "rounds=3", f"executor={executor}")
    ours = run(make_config(*common, folder="ours"))[1]
    torchs = run(
        make_config(*common, "loss._target_=torch.nn.CrossEntropyLoss", "loss.label_smoothing=0.0", folder="torchs")
    )[1]
    assert ours["test_loss"] == pytest.approx(torchs["test_loss"], rel=1e-5)


def test_a_private_run_takes_torchs_loss(make_config):
    from tests.conftest import PRIVATE, run

    overrides = (
        "privacy=example_local",
        *PRIVATE,
        "privacy.noise_multiplier=1.0",
        "loss._target_=torch.nn.CrossEntropyLoss",
    )
    assert run(make_config(*overrides, "rounds=2"))[1]["epsilon"] > 0
