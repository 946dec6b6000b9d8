from dataclasses import replace

import numpy as np
import pytest
import torch

from fedbatch.aggregation.sums import DivergedError, combine, mean_pairwise_cosine
from fedbatch.wire.messages import Contribution

# Updates of Charles et al.'s own unit test: mean norm 5.4967, norm of the mean 2.828, mean cosine -0.227.
UPDATES = torch.tensor([[1.0, 2.0, 7.0], [2.0, 4.0, 2.0], [-3.0, 0.0, -3.0]])


def node(rows: list[int], weights: list[float]) -> Contribution:
    u, w = UPDATES[rows], torch.tensor(weights)
    empty = np.zeros(0)
    return Contribution(
        update_sum=w @ u,
        buffer_sum=torch.zeros(0),
        unit_sum=(u / u.norm(dim=1, keepdim=True)).sum(0),
        clients=np.array(rows),
        weights=np.array(weights),
        num_examples=np.array(weights).astype(np.int64),
        sq_norms=u.square().sum(1).double().numpy(),
        losses=np.array(rows, dtype=float),
        half_dots=empty,
        half_sq_diffs=empty,
        excluded=np.zeros(0, np.int64),
    )


def test_known_vectors():
    total = combine([node([0, 1, 2], [1.0, 1.0, 1.0])])
    assert np.sqrt(total.sq_norms).mean() == pytest.approx(5.4967, abs=1e-4)
    assert total.sq_norm_of_mean**0.5 == pytest.approx(2.828, abs=1e-3)
    assert total.mean_cosine == pytest.approx(-0.227, abs=1e-3)


def test_orthogonal_and_identical_updates():
    assert mean_pairwise_cosine(torch.ones(4), 4) == 0
    assert mean_pairwise_cosine(torch.tensor([3.0, 0.0]), 3) == 1
    assert np.isnan(mean_pairwise_cosine(torch.ones(2), 1))


def test_weights_and_spread_over_nodes_do_not_matter():
    together = combine([node([0, 1, 2], [1.0, 2.0, 5.0])])
    apart = combine([node([1, 2], [2.0, 5.0]), node([0], [1.0])])
    expected = torch.tensor([1.0, 2.0, 5.0]) @ UPDATES / 8
    for total in (together, apart):
        torch.testing.assert_close(total.mean_update, expected)
        assert total.clients.tolist() == [0, 1, 2] and total.weights.tolist() == [1, 2, 5]
        assert total.loss == pytest.approx((0 * 1 + 1 * 2 + 2 * 5) / 8)


def test_arrival_order_does_not_change_a_bit():
    parts = [node([0], [1.0]), node([1], [3.0]), node([2], [0.1])]
    a, b = combine(parts), combine(parts[::-1])
    assert torch.equal(a.mean_update, b.mean_update) and a.sq_norm_of_mean == b.sq_norm_of_mean


def test_nobody_left_is_said():
    empty = replace(node([], []), excluded=np.array([4]), clients=np.zeros(0, np.int64))
    with pytest.raises(DivergedError, match="lower server_optimizer.lr"):
        combine([empty])
