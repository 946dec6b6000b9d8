"""FedBN: normalisation layers and statistics stay at the client."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedbatch.clients import FedBN
from fedbatch.core.errors import ConfigError
from fedbatch.models.convolutional import cnn
from fedbatch.models.flat import FlatModel
from fedbatch.setup import task
from tests.conftest import run

SMALL = ("model=cnn", "model.channels=4", "model.hidden=8", "controller=fixed", "server_optimizer.lr=1")


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_it_finds_the_layers(norm):
    model = FlatModel(cnn((1, 8, 8), 3, channels=4, hidden=8, norm=norm, groups=2))
    kinds = (nn.BatchNorm2d, nn.GroupNorm)
    named = {name for name, module in model.module.named_modules() if isinstance(module, kinds)}
    ends = np.cumsum([p.numel() for p in model.trainable])
    expected = [
        place
        for name, end, p in zip(model.names, ends, model.trainable, strict=True)
        for place in range(end - p.numel(), end)
        if name.rpartition(".")[0] in named
    ]
    work = FedBN(0.1).on_model(model)
    assert expected and work.places.tolist() == expected


def test_statistics_stay_at_the_client_and_are_used_to_score_it(make_config):
    config = make_config(
        "client_work=fedbn", *SMALL, "model.norm=batch", "client_holdout=0.3", "rounds=3", "cohort_size=20",
        "sampling=all", "client_batch_size=8",
    )  # fmt: skip
    rows, _, state = run(config)
    run_task = task.load(config.to_json())
    fresh = run_task.new_model()
    work = run_task.work("small")
    assert torch.equal(state.buffers, fresh.buffers)  # the server's statistics are those of nobody
    assert torch.equal(state.params[work.places], fresh.params[work.places])
    accuracies, seen = [], []
    for client in range(20):
        kept = np.load(Path(config.run_dir) / "clients" / str(client) / "round-00000003.npy")
        own, buffers = np.split(kept, [len(work.places)])[0], torch.from_numpy(kept[len(work.places) + 1 :])
        params = state.params.clone()
        params[work.places] = torch.from_numpy(own)
        model = run_task.node_model
        model.load(params, buffers)
        model.module.eval()
        x, y = run_task.examples(run_task.held_out(client))
        accuracies.append(float((model(x).argmax(dim=1) == y).double().mean()))
        seen.append(buffers.numpy())
    assert np.unique(np.array(seen).round(6), axis=0).shape[0] == 20
    assert rows[-1]["client_accuracy_p50"] == pytest.approx(np.median(accuracies), abs=1e-9)


def test_a_model_without_norms_is_refused_in_one_line(make_config):
    with pytest.raises(ConfigError, match="client_work: FedBN keeps normalisation layers.*set model.norm"):
        task.load(make_config("client_work=fedbn").to_json())
