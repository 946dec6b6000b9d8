"""Several labels an example, against scikit-learn."""

import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics

from fedbatch.core.errors import ConfigError
from fedbatch.data.dataset import Dataset
from fedbatch.losses import BCE
from fedbatch.tasks import MultiLabel


def things(labels=3, examples=300):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(examples, 6)).astype(np.float32)
    y = (x @ rng.normal(size=(6, labels)) + 0.5 * rng.normal(size=(examples, labels)) > 0.3).astype(int)
    cut = examples * 4 // 5
    return Dataset("things", x[:cut], y[:cut], x[cut:], y[cut:])


def scored(task, logits, labels):
    sums = task.sums(torch.from_numpy(logits), task.targets(labels), torch.zeros(0)).numpy()
    low, high = task.bounds()
    assert ((low <= sums) & (sums <= high)).all()
    return task.columns(np.array(float(len(labels))), sums.sum(axis=0), task.at)


@pytest.mark.parametrize("scale", [0.1, 3.0, 100.0])
@pytest.mark.parametrize("bins", [2, 100, 1000])
def test_scores_are_scikit_learns(scale, bins):
    """The area within the error that stands beside it, however badly the bins fit the logits."""
    rng = np.random.default_rng(1)
    labels = (rng.random((400, 4)) < [0.5, 0.05, 0.95, 0.3]).astype(np.float64)
    logits = scale * (rng.normal(size=labels.shape) + labels - 0.5)
    found, predicted = scored(MultiLabel(bins).fitted(labels, None), logits, labels), (logits > 0).astype(float)
    for average in ("macro", "micro"):
        expected = metrics.f1_score(labels, predicted, average=average, zero_division=0)
        assert found[f"{average}_f1"] == pytest.approx(expected, abs=1e-12)
    exact = metrics.roc_auc_score(labels, logits, average="macro")
    assert abs(found["auroc"] - exact) <= found["auroc_error"] + 1e-12
    assert found["auroc_error"] < 0.01 or scale != 3.0 or bins < 100


def test_labels_that_are_never_there_count_as_scikit_learn_has_them():
    labels, logits = np.array([[1.0, 0, 0], [1, 0, 1]]), np.array([[2.0, -1, -1], [-1, -1, 1]])
    found = scored(MultiLabel().fitted(labels, None), logits, labels)
    with warnings.catch_warnings(action="ignore"):
        assert found["macro_f1"] == pytest.approx(metrics.f1_score(labels, logits > 0, average="macro"))
    assert found["auroc"] == 1.0  # of the one label of which both values occur
    ones = np.ones((2, 1))
    assert np.isnan(scored(MultiLabel().fitted(ones, None), ones, ones)["auroc"])


def test_nothing_has_no_score():
    task = MultiLabel().fitted(np.ones((2, 3)), None)
    found = task.columns(np.zeros(2), np.zeros((2, task.bounds().shape[1])), task.at)
    assert all(np.isnan(values).all() for values in found.values())


def test_without_bins_there_is_no_area():
    task = MultiLabel(auroc_bins=0).fitted(np.ones((2, 3)), None)
    assert [each.name for each in task.scores] == ["macro_f1", "micro_f1"] and task.bounds().shape == (2, 9)
    with pytest.raises(ValueError, match=r"^task.auroc_bins must be 0 for none, or at least 2"):
        MultiLabel(auroc_bins=1)


def test_the_loss_is_torchs():
    logits, labels = torch.randn(5, 3), torch.randint(2, (5, 3)).float()
    oracle = torch.nn.BCEWithLogitsLoss()
    assert torch.allclose(BCE()(logits, labels), oracle(logits, labels))
    assert BCE()(logits, labels, reduction="none").shape == (5,)


@pytest.mark.parametrize("executor", ["loop", "fused", "vmap"])
def test_a_run_is_scored_as_scikit_learn_scores_its_model(learn, predictions, executor):
    data = things()
    found = learn(data, "task=multi_label", f"executor={executor}", client_holdout=0.2, rounds=6)
    logits = predictions(found, data.test_x).numpy()
    expected = metrics.f1_score(data.test_y, logits > 0, average="macro", zero_division=0)
    assert found.summary["test_macro_f1"] == pytest.approx(expected)
    assert found.summary["score"] == "test_macro_f1" and found.summary["test_auroc_error"] < 0.1
    assert "client_macro_f1_p50" in found.rounds.columns


def test_private_runs_work(learn):
    privacy = ("privacy=example_local", "privacy.target_epsilon=null", "privacy.noise_multiplier=1.0")
    assert learn(things(), "task=multi_label", *privacy, cohort_size=10).summary["rounds"] == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda y: y + 1, r"train_y is neither 0 nor 1 in \d+ of 240 rows .*"),
        (lambda y: y[:, :, None], r"labels are \(examples,\) or \(examples, outputs\)"),
        (lambda y: np.where(y > 0, 0.5, y), r"train_y is neither 0 nor 1"),
    ],
)
def test_other_labels_are_refused(learn, change, said):
    data = things()
    with pytest.raises(ConfigError, match=said):
        learn(Dataset("t", data.train_x, change(data.train_y), data.test_x, change(data.test_y)), "task=multi_label")
