"""The order of who is done first, ties too, and which models are kept."""

import torch

from fedbatch.asynchronous.under_way import UnderWay


def begun(now, clients, version, due, model):
    due = torch.tensor(due, dtype=torch.float64)
    return now.begun(torch.tensor(clients), version, due, {"params": model}, f"phase {version}")


def test_first_come_first_and_of_two_at_once_the_lower_id():
    now = begun(UnderWay(), [2, 9], 0, [4.0, 5.0], torch.zeros(1))
    now = begun(now, [7, 1, 3], 1, [5.0, 5.0, 3.0], torch.ones(1))
    assert now.clients.tolist() == [3, 2, 1, 7, 9] and now.versions.tolist() == [1, 0, 1, 1, 0]
    assert now.due.tolist() == [3, 4, 5, 5, 5]


def test_models_are_kept_as_long_as_somebody_works_on_them_and_copied_before_a_step():
    params = torch.ones(2)
    now = begun(begun(UnderWay(), [0], 0, [1.0], torch.zeros(2)), [1, 2], 1, [2.0, 3.0], params)
    left = now.select(slice(1, None))
    assert set(left.models) == {1} and left.phases == {1: "phase 1"}
    kept = left.kept(1)
    params += 1  # as the server's step does, in place
    assert left.models[1]["params"].tolist() == [2, 2] and kept.models[1]["params"].tolist() == [1, 1]
    assert kept.kept(5) is kept
