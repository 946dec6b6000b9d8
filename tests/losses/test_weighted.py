"""Weights of classes: scikit-learn's balanced ones, and torch's loss where batches do not matter."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from fedbatch.core.errors import ConfigError
from fedbatch.losses import CrossEntropy, WeightedCrossEntropy
from tests.conftest import run


def test_single_losses_are_torchs_times_the_weight():
    logits, labels, weight = torch.randn(9, 3), torch.randint(3, (9,)), [0.5, 2.0, 0.0]
    oracle = torch.nn.CrossEntropyLoss(weight=torch.tensor(weight), reduction="none")
    found = WeightedCrossEntropy(weight)
    assert torch.allclose(found(logits, labels, reduction="none"), oracle(logits, labels))
    assert torch.allclose(found(logits, labels), oracle(logits, labels).mean())


def test_balanced_weights_are_scikit_learns():
    labels = np.random.default_rng(0).choice(4, 500, p=[0.7, 0.2, 0.05, 0.05])
    found = WeightedCrossEntropy("balanced").fitted(labels, 4)
    assert found.class_weights == pytest.approx(
        compute_class_weight("balanced", classes=np.arange(4), y=labels).tolist()
    )
    assert (
        WeightedCrossEntropy("balanced").fitted(np.array([0, 0, 2]), 3).class_weights[1] == 0
    )  # nothing to learn of it
    sequences = np.array([[0, -100], [1, 1]])
    assert WeightedCrossEntropy("balanced").fitted(sequences, 2).class_weights == pytest.approx((1.5, 0.75))


@pytest.mark.parametrize("executor", ["fused", "vmap"])
def test_executors_agree(make_config, executor):
    weights = f"loss.class_weights=[{','.join(map(str, range(1, 11)))}]"
    chosen = ("controller=fixed", "loss=weighted_cross_entropy", weights)
    loop = run(make_config(*chosen, "executor=loop", folder="loop"))[1]
    found = run(make_config(*chosen, f"executor={executor}", folder=executor))[1]
    assert found["test_loss"] == pytest.approx(loop["test_loss"], rel=1e-5)


def test_equal_weights_are_none(make_config):
    ones = f"loss.class_weights=[{','.join(['1.0'] * 10)}]"
    weighted = run(make_config("controller=fixed", "loss=weighted_cross_entropy", ones, "executor=loop", folder="a"))[1]
    plain = run(make_config("controller=fixed", "executor=loop", folder="b"))[1]
    assert weighted["test_loss"] == pytest.approx(plain["test_loss"], rel=1e-6)
    assert CrossEntropy()(torch.zeros(1, 2), torch.tensor([1])) == WeightedCrossEntropy([1, 1])(
        torch.zeros(1, 2), torch.tensor([1])
    )


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["loss.class_weights=[1,2]"], r"^loss.class_weights: 2 numbers for 10 classes; give one for each"),
        (["loss.class_weights=[0,0]"], r"^loss.*class_weights must be at least 0, and not all 0"),
        (["loss.class_weights=even"], r"^loss.*class_weights must be balanced, or a number for each class"),
        (["privacy=client_central"], r"^loss.class_weights: exact numbers of labels are not covered"),
        (["task=regression", "loss=weighted_cross_entropy"], r"^loss: WeightedCrossEntropy needs one class an example"),
    ],
)
def test_what_cannot_be_is_refused(make_config, overrides, said):
    with pytest.raises(ConfigError, match=said):
        run(make_config("loss=weighted_cross_entropy", "controller=fixed", *overrides))


def test_a_node_with_data_of_its_own_is_given_the_weights(make_config):
    from fedbatch.setup.nodes import on_own_data

    data = ("dataset=hugging_face", "dataset.source=x", "dataset.input_column=a", "loss=weighted_cross_entropy")
    with pytest.raises(ConfigError, match=r"the loss reads the labels of everybody.* as loss.class_weights"):
        on_own_data(make_config(*data, base=()), {"data": "y", "partition-id": 0, "num-partitions": 2})
