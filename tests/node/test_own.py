"""The files of what clients keep, against a server that loses answers, crashes, and goes back to older checkpoints."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedbatch.clients.own import OwnVectors
from fedbatch.node.own import OwnFiles, begun
from fedbatch.server.checkpoint import KEEP
from fedbatch.wire.messages import TrainPlan

CLIENTS = np.arange(3)


def plan_of(round_, clients, versions, checkpoints):
    nothing, named, done = torch.zeros(0), np.array(versions, np.int64), np.array(checkpoints, np.int64)
    plan = TrainPlan(nothing, nothing, clients, clients + 1, round_, "", halves=False, cosine=False, executor="loop")
    return replace(plan, versions=named, checkpoints=done)


@pytest.mark.parametrize("seed", range(60))
def test_a_client_goes_on_from_the_last_round_that_the_server_took(seed, tmp_path):
    """The reference is a server that keeps every client's numbers itself and saves them in its checkpoints."""
    rng, files = random.Random(seed), OwnFiles(tmp_path)
    round_, valid, truth = 0, {c: 0 for c in range(3)}, {c: 0.0 for c in range(3)}
    saved = {0: (dict(valid), dict(truth))}
    for moment in range(80):
        asked = np.array(sorted(rng.sample(range(3), rng.randint(1, 3))))
        own, lost = begun(files, plan_of(round_, asked, [valid[c] for c in asked], sorted(saved)), 2)
        assert own.read(asked)[:, 0].tolist() == [truth[c] for c in asked] and not lost
        made = {c: 1 + moment + 0.5 * truth[c] for c in asked.tolist()}
        if rng.random() < 0.9:  # else the node dies before it has done its work
            own.write(asked, torch.tensor([[made[c], 0.0] for c in asked.tolist()], dtype=torch.float64))
            for c in asked.tolist():
                if rng.random() < 0.7:  # else the answer is lost or refused
                    valid[c], truth[c] = round_ + 1, made[c]
        round_ += 1
        if rng.random() < 0.3:
            saved[round_] = (dict(valid), dict(truth))
            saved = {done: saved[done] for done in sorted(saved)[-KEEP:]}
        if rng.random() < 0.15:  # a crash, and now and then the last checkpoint is damaged
            round_ = rng.choice(sorted(saved))
            saved = {done: values for done, values in saved.items() if done <= round_}
            valid, truth = (dict(values) for values in saved[round_])
        for c in range(3):
            assert len(list((tmp_path / str(c)).glob("*"))) <= KEEP + 2


def test_what_is_damaged_or_of_another_size_is_lost(tmp_path):
    files = OwnFiles(tmp_path)
    for client, values in enumerate((torch.ones(2), torch.ones(3), torch.ones(2))):
        files.write(client, 4, values)
    path = tmp_path / "2" / "round-00000004.npy"
    path.write_bytes(path.read_bytes()[:-3])
    own, lost = begun(files, plan_of(4, CLIENTS, [4, 4, 4], []), 2)
    assert own.read(CLIENTS).tolist() == [[1, 1], [0, 0], [0, 0]] and lost == {1, 2}


def test_nothing_unnamed_is_read_and_no_object_is_unpickled(tmp_path):
    files = OwnFiles(tmp_path)
    files.write(0, 3, torch.ones(2))
    own, lost = begun(files, plan_of(5, CLIENTS[:1], [0], []), 2)
    assert not lost and own.read(CLIENTS[:1]).tolist() == [[0, 0]]
    (tmp_path / "1").mkdir()
    np.save(tmp_path / "1" / "round-00000002.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    assert files.read(1, 2, 2) is None


def test_what_is_written_is_not_read_in_the_same_round():
    own = OwnVectors(lambda clients: torch.zeros(len(clients), 1))
    own.write(CLIENTS, torch.ones(3, 1))
    assert own.read(CLIENTS).tolist() == [[0], [0], [0]] and own.stacked(CLIENTS).tolist() == [[1], [1], [1]]
    assert own.anew().after == {}
