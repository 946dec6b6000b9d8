import numpy as np
import pytest
import torch

from fedbatch.data import digits
from fedbatch.models import mlp
from simulations.public_start import part, trained_mlp


def test_two_parts_are_the_whole_and_share_nothing():
    whole = digits()
    first, second = part(whole, 0, 300), part(whole, 300, len(whole.train_y))
    np.testing.assert_array_equal(np.concatenate([first.train_x, second.train_x]), whole.train_x)
    np.testing.assert_array_equal(np.concatenate([first.train_y, second.train_y]), whole.train_y)
    assert first.test_x is whole.test_x and first.name == "digits_0_300"


@pytest.mark.parametrize("bounds", [(-1, 5), (5, 5), (0, 10_000)])
def test_a_part_that_is_not_there_is_refused(bounds):
    with pytest.raises(ValueError, match="start and stop must be in 0"):
        part(digits(), *bounds)


def test_training_starts_from_the_weights_of_the_file(tmp_path):
    torch.manual_seed(3)
    trained = mlp((8, 8), 10, width=4, depth=1)
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    torch.manual_seed(4)
    model = trained_mlp((8, 8), 10, 4, 1, str(tmp_path / "model.pt"))
    for name, value in trained.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
