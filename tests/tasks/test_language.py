"""Sequences with a label a position: the same loss and accuracy as before, and perplexity besides."""

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.text import Perplexity

from fedbatch.core.errors import ConfigError
from fedbatch.data.dataset import Dataset
from fedbatch.tasks import Language

TOKENS = 7


def texts(examples=240, length=5, hidden=0.0):
    rng = np.random.default_rng(0)
    x = rng.integers(0, TOKENS, (examples, length))
    y = (x * 3 + 1) % TOKENS
    y[rng.random(y.shape) < hidden] = -100
    y[:, 0] = x[:, 0]
    cut = examples * 4 // 5
    return Dataset("texts", x[:cut], y[:cut], x[cut:], y[cut:], TOKENS)


def model():
    return nn.Sequential(nn.Embedding(TOKENS, 8), nn.Linear(8, TOKENS))


@pytest.mark.parametrize("hidden", [0.0, 0.5])
def test_perplexity_is_torchmetrics(hidden):
    data = texts(hidden=hidden)
    logits = torch.randn(192, 5, TOKENS, generator=torch.Generator().manual_seed(0))
    task = Language().fitted(data.train_y, TOKENS)
    targets = task.targets(data.train_y)
    sums = task.sums(logits, targets, torch.zeros(0)).numpy()
    found = task.columns(np.array(192.0), sums.sum(axis=0), task.at)
    assert found["perplexity"] == pytest.approx(float(Perplexity(ignore_index=-100)(logits, targets)), rel=1e-5)
    told = data.train_y != -100
    assert found["token_accuracy"] == pytest.approx((logits.argmax(-1).numpy() == data.train_y)[told].mean())


def test_loss_and_accuracy_are_bit_for_bit_those_of_classes(learn):
    data, common = texts(hidden=0.3), {"model": model, "client_holdout": 0.2}
    plain = learn(data, "executor=loop", folder="plain", **common)
    found = learn(data, "task=language", "executor=loop", folder="language", **common)
    for name in ("test_loss", "test_accuracy", "train_loss", "noise_scale", "noise_scale_tokens", "params_sha256"):
        assert found.summary.get(name) == plain.summary.get(name)
    assert found.summary["score"] == "test_perplexity" and found.summary["score_better"] == "lower"
    assert "client_perplexity_p50" in found.rounds.columns and found.summary["test_perplexity"] > 1


def test_a_model_that_is_infinitely_wrong_has_a_finite_perplexity():
    task = Language().fitted(np.zeros((1, 1), int), 2)
    found = task.columns(np.array([1.0, 0.0]), np.array([[0, 0, 1, 1e6], [0, 0, 0, 0]], float), task.at)
    assert np.isfinite(found["perplexity"][0]) and np.isnan(found["perplexity"][1])


def test_one_label_an_example_is_refused(learn):
    data = texts()
    with pytest.raises(ConfigError, match=r"^task: language takes a label a position"):
        learn(Dataset("t", data.train_x, data.train_y[:, 0], data.test_x, data.test_y[:, 0], TOKENS), "task=language")
