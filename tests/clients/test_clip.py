import math

import pytest
import torch

from fedbatch.clients.clip import Clip


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_length_that_is_not_finite_has_no_factor_and_stays_visible(bad):
    # Were infinity scaled by 0, a gradient with infinite entries would pass for a clean update and make the sum NaN.
    factors, squares = Clip(1.0)(torch.tensor([[bad, 4.0]]))
    assert factors[0, 0].isnan() and squares[0].isnan()
    assert factors[0, 1] == 0.5 and squares[1] == 1.0


def test_layers_are_clipped_to_equal_shares():
    factors, squares = Clip(2.0, per_layer=True)(torch.tensor([[16.0], [0.5], [0.0], [2.0]]))
    assert factors[:, 0].tolist() == pytest.approx([0.25, 1.0, 1.0, 0.5**0.5])
    assert squares.tolist() == pytest.approx([1 + 0.5 + 0 + 1])


def test_an_infinite_clip_norm_clips_nothing():
    factors, squares = Clip(math.inf)(torch.tensor([[9.0, 0.0]]))
    assert factors.tolist() == [[1.0, 1.0]] and squares.tolist() == [9.0, 0.0]
