"""Metrics of torchmetrics as columns, and which are refused."""

import numpy as np
import pytest
import torch
import torchmetrics
from torchmetrics import classification as c

from fedbatch.core.errors import ConfigError
from fedbatch.tasks import Classification, Language, MultiLabel, Regression, Segmentation, WithTorchMetrics
from tests.conftest import toy_dataset
from tests.tasks.test_language import TOKENS, texts
from tests.tasks.test_multi_label import things
from tests.tasks.test_regression import homes

CASES = [
    (Classification(), toy_dataset(), {"f1": c.MulticlassF1Score(3), "roc": c.MulticlassAUROC(3, thresholds=20)}),
    (Classification(), toy_dataset(), {"kappa": c.MulticlassCohenKappa(3), "ece": c.MulticlassMatthewsCorrCoef(3)}),
    (Regression(standardise=True), homes(2), {"r": torchmetrics.R2Score(), "e": torchmetrics.MeanSquaredError()}),
    (MultiLabel(), things(), {"f1": c.MultilabelF1Score(3), "ap": c.MultilabelAveragePrecision(3, thresholds=50)}),
]


@pytest.mark.parametrize(("base", "data", "metrics"), CASES)
def test_columns_are_what_the_metric_says_of_all_predictions(base, data, metrics):
    task = WithTorchMetrics(base, metrics).fitted(task_labels(base, data), data.num_classes)
    targets = task.targets(task_labels(base, data))
    shape = task.output_shape(tuple(targets.shape))
    outputs = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    at = torch.from_numpy(task.at)
    parts = [task.sums(outputs[rows], targets[rows], at).sum(dim=0).numpy() for rows in (slice(0, 7), slice(7, None))]
    assert parts[0].shape == task.bounds()[0].shape
    found = task.columns(np.array(float(len(targets))), sum(parts), task.at)
    for name, metric in metrics.items():
        metric.reset()
        assert found[name] == pytest.approx(float(metric(*task.readable(outputs, targets))), rel=1e-5)
    alone = task.base.columns(np.array(float(len(targets))), sum(parts)[: task.base.bounds().shape[1]], task.at)
    assert {name: found[name] for name in alone} == alone


def task_labels(base, data):
    y = np.asarray(data.train_y)
    return y if base.rule.has_classes else y.astype(float)


def test_a_run_has_the_columns_and_follows_the_chosen_score(learn):
    task = WithTorchMetrics(Classification(), {"f1": c.MulticlassF1Score(3)}, "f1")
    found = learn(toy_dataset(200), task=task, client_holdout=0.2)
    assert found.summary["score"] == "test_f1" and found.summary["score_better"] == "higher"
    assert {"test_accuracy", "client_f1_p50"} <= set(found.rounds.columns)
    plain = learn(toy_dataset(200), client_holdout=0.2, folder="plain")
    assert plain.summary["test_accuracy"] == found.summary["test_accuracy"]


def test_tokens_and_pixels_too():
    data = texts(hidden=0.3)
    task = WithTorchMetrics(Language(), {"p": torchmetrics.text.Perplexity(ignore_index=-100)})
    assert task.score == "perplexity" and task.fitted(data.train_y, TOKENS).outputs == TOKENS
    jaccard = WithTorchMetrics(Segmentation(), {"iou": c.MulticlassJaccardIndex(3, ignore_index=-100)})
    fitted, labels = jaccard.fitted(np.zeros((1, 2, 2), int), 3), torch.randint(3, (4, 2, 2))
    sums = fitted.sums(torch.randn(4, 3, 2, 2), labels, torch.zeros(0)).sum(dim=0).numpy()
    found = fitted.columns(np.array(4.0), sums, fitted.at)
    assert found["iou"] == pytest.approx(found["mean_iou"], rel=1e-6)


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (c.MulticlassAUROC(3), r"^task.metrics.mine: state preds of MulticlassAUROC is put together by 'cat'"),
        (torchmetrics.PearsonCorrCoef(), r"^task.metrics.mine: state mean_x of PearsonCorrCoef is put together by"),
        (torchmetrics.MetricCollection([c.MulticlassAccuracy(3)]), r"^task.metrics.mine: a MetricCollection has no st"),
        (torch.nn.ReLU(), r"^task.metrics.mine: a ReLU has no states"),
    ],
)
def test_what_does_not_add_up_is_refused_by_its_state(metric, said):
    with pytest.raises(ValueError, match=said) as refusal:
        WithTorchMetrics(Classification(), {"mine": metric})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (c.MulticlassF1Score(3, average=None), r"task.metrics.mine: gives .*, and a score is one number"),
        (c.MulticlassF1Score(5), r"task.metrics.mine: cannot be updated with such predictions"),
        (torchmetrics.MeanSquaredError(), r"task.metrics.mine: cannot be updated with such predictions"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_run(learn, metric, said):
    with pytest.raises(ConfigError, match=said):
        learn(toy_dataset(), task=WithTorchMetrics(Classification(), {"mine": metric}))
