"""A class for each pixel, against scikit-learn and torchmetrics."""

import numpy as np
import pytest
import torch
from sklearn import metrics
from torchmetrics.classification import MulticlassJaccardIndex

from fedbatch.core.errors import ConfigError
from fedbatch.data.dataset import Dataset
from fedbatch.losses import PixelCrossEntropy
from fedbatch.tasks import Segmentation
from tests.tasks.shapes import model, shapes


def scored(logits, labels, classes=4):
    task = Segmentation().fitted(labels, classes)
    sums = task.sums(torch.from_numpy(logits), task.targets(labels), torch.zeros(0)).numpy()
    return task.columns(np.array(float(len(labels))), sums.sum(axis=0), task.at)


@pytest.mark.parametrize("unlabelled", [0.0, 0.4])
@pytest.mark.parametrize("there", [4, 3])
def test_scores_are_those_of_others(unlabelled, there):
    """With a class that is nowhere, too."""
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, there, (20, 5, 6)), rng.normal(size=(20, 4, 5, 6))
    logits[:, there:] = -100
    labels[rng.random(labels.shape) < unlabelled] = -100
    predicted, told = logits.argmax(axis=1), labels != -100
    found = scored(logits, labels)
    assert found["pixel_accuracy"] == pytest.approx(metrics.accuracy_score(labels[told], predicted[told]))
    assert found["mean_iou"] == pytest.approx(metrics.jaccard_score(labels[told], predicted[told], average="macro"))
    if there == 4:
        oracle = MulticlassJaccardIndex(4, ignore_index=-100)
        assert found["mean_iou"] == pytest.approx(float(oracle(torch.from_numpy(predicted), torch.from_numpy(labels))))


def test_nothing_has_no_score():
    task = Segmentation().fitted(np.zeros((1, 2, 2), np.int64), 3)
    assert all(np.isnan(each).all() for each in task.columns(np.zeros(1), np.zeros((1, 9)), task.at).values())


def test_the_loss_is_torchs_of_each_image():
    logits, labels = torch.randn(5, 3, 4, 4), torch.randint(3, (5, 4, 4))
    labels[torch.rand(5, 4, 4) < 0.3] = -100
    oracle = torch.nn.CrossEntropyLoss(ignore_index=-100)
    alone = torch.stack([oracle(z[None], y[None]) for z, y in zip(logits, labels, strict=True)])
    assert torch.allclose(PixelCrossEntropy()(logits, labels, reduction="none"), alone, atol=1e-6)
    assert torch.allclose(PixelCrossEntropy()(logits, labels), alone.mean())


@pytest.mark.parametrize("executor", ["loop", "vmap"])
def test_a_run_is_scored_as_scikit_learn_scores_its_model(learn, predictions, executor):
    """The labels say what the task is."""
    data = shapes(unlabelled=0.1)
    found = learn(data, f"executor={executor}", model=model, client_holdout=0.2, rounds=6)
    predicted, told = predictions(found, data.test_x).argmax(dim=1).numpy(), data.test_y != -100
    expected = metrics.jaccard_score(data.test_y[told], predicted[told], average="macro")
    assert found.summary["test_mean_iou"] == pytest.approx(expected)
    assert found.summary["score"] == "test_mean_iou" and "client_mean_iou_p50" in found.rounds.columns


def test_another_index_is_ignored_alike(learn):
    ours = learn(shapes(unlabelled=0.2), "task=segmentation", "executor=loop", model=model, folder="a")
    marked = shapes(unlabelled=0.2, ignored=255)
    theirs = learn(marked, "task=segmentation", "task.ignore_index=255", "executor=loop", model=model, folder="b")
    assert ours.summary["test_mean_iou"] == theirs.summary["test_mean_iou"]


def test_private_runs_work(learn):
    privacy = ("privacy=example_local", "privacy.target_epsilon=null", "privacy.noise_multiplier=1.0")
    assert learn(shapes(), "task=segmentation", *privacy, model=model, cohort_size=10).summary["rounds"] == 4


def test_a_loss_of_torch_works(learn):
    assert learn(shapes(), "task=segmentation", model=model, loss=torch.nn.CrossEntropyLoss()).summary["rounds"] == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda y: y + 1, r"train_y runs from 1 to 3 in \d+ of 160 rows .* set task.ignore_index \(is -100\)"),
        (lambda y: y + 0.5, r"train_y is no whole number in 160 of 160 rows"),
        (lambda y: y[:, :, 0], r"labels of pixels are \(examples, height, width\)"),
        (lambda y: np.full_like(y, -100), r"train_y has no label at any pixel in 160 of 160 rows .*; drop them"),
    ],
)
def test_other_labels_are_refused(learn, change, said):
    data = shapes()
    wrong = Dataset("s", data.train_x, change(data.train_y), data.test_x, change(data.test_y), 3)
    with pytest.raises(ConfigError, match=said):
        learn(wrong, "task=segmentation", model=model)


def test_a_model_with_classes_elsewhere_is_refused(learn):
    class Last(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model(3)

        def forward(self, x):
            return self.net(x).movedim(1, -1)

    with pytest.raises(ConfigError, match=r"logits of shape \(8, 3, 8, 8\), one for each class along axis 1"):
        learn(shapes(), "task=segmentation", model=Last)


def test_a_node_whose_sums_contradict_each_other_is_refused_and_the_run_goes_on(make_config):
    """Each sum may be right by itself, and the score of them beyond its range."""
    from types import SimpleNamespace

    from fedbatch.server.hosts import Hosts
    from fedbatch.server.plausible import check_evaluation
    from fedbatch.setup import task
    from fedbatch.wire.check import MessageError
    from fedbatch.wire.held_out import Evaluation

    parts = ("dataset._target_=tests.tasks.shapes.shapes", "model=logistic", "model._target_=tests.tasks.shapes.model")
    held = task.load(make_config(*parts, "task=segmentation", "controller=fixed", "client_holdout=0.3").to_json())
    clients = np.arange(2)
    server = SimpleNamespace(task=held, hosts=Hosts(clients, np.ones(2, np.uint64), np.array([6, 6])))

    def check(right, said, true):
        sums = torch.tensor([[*right, *said, *true]] * 2, dtype=torch.float64).flatten()
        check_evaluation(server, Evaluation(clients, np.array([1, 1]), sums, np.ones(2)))

    check((10, 0, 0), (40, 20, 4), (50, 14, 0))
    for wrong in (((40, 14, 14), (40, 20, 14), (50, 14, 0)), ((0, 0, 3), (0, 0, 2), (0, 0, 2))):
        with pytest.raises(MessageError, match=r"^score_sums give no scores: client_\w+ is .*, outside \[0, 1\]"):
            check(*wrong)
