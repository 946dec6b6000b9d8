"""Every round on the clients and the examples of the first: as plain torch on those examples."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedbatch.core.errors import ConfigError
from fedbatch.setup import task
from tests.conftest import PRIVATE, run

OPTIONS = ("controller=fixed", "one_batch=true", "rounds=30", "server_optimizer.lr=0.5")


def test_the_loss_is_that_of_gradient_descent_on_one_batch(make_config):
    config = make_config(*OPTIONS, "checkpoint_every_rounds=0")
    rows = run(config)[0]
    loaded = task.load(config.to_json())
    work, model = loaded.default_work, loaded.new_model().module
    clients = np.array([client for client in range(20) if client in _cohort(config)], dtype=np.int64)
    draw = work.draw(loaded.partition, clients, np.full(len(clients), 4), config.seed, 0)
    x, y = loaded.examples(draw.positions.reshape(-1))
    losses = []
    for _ in rows:
        loss = F.cross_entropy(model(x), y)
        losses.append(loss.item())
        with torch.no_grad():
            for each, gradient in zip(
                model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
            ):
                each -= 0.5 * gradient
    assert [row["train_loss"] for row in rows] == pytest.approx(losses, rel=1e-4)
    assert losses[-1] < losses[0] / 2


def _cohort(config):
    from fedbatch.clients.cohort import sample_cohort

    return sample_cohort(np.arange(20), config.sampling, 4, config.seed, 0).tolist()


def test_privacy_refuses_it(make_config):
    config = make_config("privacy=client_central", *PRIVATE, "privacy.noise_multiplier=1", "one_batch=true")
    with pytest.raises(ConfigError, match="set one_batch=false"):
        task.load(config.to_json())
