"""Losses over a batch see the batch of one client, whatever runs it, and only where the guarantee covers that."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedbatch.core.errors import ConfigError
from fedbatch.executors.choose import Executors
from fedbatch.losses import SBECE, CrossEntropy, Sum
from fedbatch.setup import task
from tests.conftest import run
from tests.executors.test_executors import make_job

LOSS = Sum(CrossEntropy(), SBECE(), 2.0)
EXAMPLES = ("example_local", "example_distributed")


def gradient(job, rows):
    """Of the loss over the examples of some clients together, in plain PyTorch."""
    x, y = (torch.cat(parts) for parts in zip(*(job.batch(row, 0) for row in rows), strict=True))
    job.model.load(job.params, job.buffers)
    return torch.cat([g.flatten() for g in torch.autograd.grad(LOSS(job.model.module(x), y), job.model.trainable)])


def test_the_batch_of_the_statistic_is_the_clients_own():
    job = replace(make_job(channels_last=False), loss=LOSS)
    found = Executors().execute(job, "auto")
    assert found.executor == "loop"
    own = [gradient(job, [row]) for row in range(6)]
    expected = sum(w * g for w, g in zip(job.weights, own, strict=True))
    torch.testing.assert_close(found.update_sum.double(), expected)
    np.testing.assert_allclose(found.sq_norms, [float(g @ g) for g in own])
    mixed = gradient(job, range(6)) * job.weights.sum()
    assert (mixed - expected).norm() > 0.01 * expected.norm(), "else this test could not tell"


@pytest.mark.parametrize(("executor", "work"), [("fused", "fedsgd"), ("vmap", "local_sgd")])
def test_executors_that_would_mix_or_pad_batches_refuse(make_config, executor, work):
    config = make_config("loss=ce_sb_ece", f"executor={executor}", f"client_work={work}")
    with pytest.raises(ConfigError, match=f"executor={executor}"):
        task.load(config.to_json())


@pytest.mark.parametrize("mechanism", EXAMPLES)
@pytest.mark.parametrize(
    "loss",
    [
        "ce_sb_ece",
        *(
            pytest.param(f"ce_{name}", marks=pytest.mark.slow)
            for name in ("s_avuc", "mmce", "avuc", "sb_ece_label_binned")
        ),
    ],
)
def test_refused_where_single_examples_are_protected(make_task, mechanism, loss):
    with pytest.raises(ConfigError, match="couples the examples"):
        make_task(mechanism, f"loss={loss}", "executor=loop", "privacy.noise_multiplier=0")


@pytest.mark.parametrize("loss", [("ce_frozen_bins",), ("ce_sb_ece", "loss.weight=0")])
def test_what_couples_nothing_is_allowed(make_task, loss):
    choice, *more = loss
    silent = ("executor=loop", "privacy.noise_multiplier=0", "privacy.min_clients=2")
    assert make_task("example_distributed", f"loss={choice}", *more, *silent).loss.per_example


def test_allowed_where_clients_are_protected(make_config):
    options = ("privacy=client_central", "controller=fixed", "executor=loop", "privacy.target_epsilon=null")
    rows, _, _ = run(make_config("loss=ce_sb_ece", *options, "privacy.noise_multiplier=0", "rounds=1"))
    assert len(rows) == 1
