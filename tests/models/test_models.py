import pytest
import torch

from fedbatch.models.convolutional import cnn
from fedbatch.models.linear import logistic, mlp
from fedbatch.models.resnet import resnet18


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_sizes():
    assert count(cnn((1, 28, 28), 10, channels=32, hidden=128, norm="none", groups=8)) == 1_199_882
    assert count(mlp((784,), 10, width=64, depth=2)) == 784 * 64 + 64 + 64 * 64 + 64 + 640 + 10
    assert 11.0e6 < count(resnet18((3, 32, 32), 10, width=64, norm="group", groups=8)) < 11.3e6


@pytest.mark.parametrize("norm", ["none", "group", "batch"])
@pytest.mark.parametrize("make", [cnn, resnet18])
def test_image_models_give_logits(make, norm):
    size = {"channels": 8, "hidden": 16} if make is cnn else {"width": 8}
    model = make((1, 8, 8), 5, norm=norm, groups=4, **size)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 5)


def test_logistic_starts_at_even_odds():
    assert not logistic((4, 4), 3)(torch.randn(2, 4, 4)).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mlp((3,), 2, width=0, depth=1), "width must be at least 1"),
        (lambda: cnn((30,), 2, channels=8, hidden=8, norm="none", groups=1), "model=mlp"),
        (lambda: cnn((1, 8, 8), 2, channels=8, hidden=8, norm="layer", groups=1), "norm must be"),
        (lambda: resnet18((1, 8, 8), 2, width=10, norm="group", groups=4), "groups must divide"),
    ],
)
def test_what_cannot_be_built_says_what_to_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()
